from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
from scipy import ndimage

from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.report.stages import Stages, moved_by, overlaid, step_text
from lesionwise.types import Grid, Study, Visit, Volume

GRID = Grid((40, 44, 36), np.diag([3.0, 3.0, 3.0, 1.0]))


def head():
    """A bright front in a ball of 40 mm: the front half is 200, the back 100."""
    at = GRID.world_mm(np.indices(GRID.shape).reshape(3, -1).T) - [58, 66, 50]
    inside = (np.linalg.norm(at, axis=1) < 40).reshape(GRID.shape)
    front = (at[:, 1] > 0).reshape(GRID.shape)
    scan = np.where(inside, np.where(front, 200.0, 100.0), 0.0).astype(np.float32)
    return Visit({"flair": Volume(scan, GRID)}), Volume(inside, GRID)


@dataclass(frozen=True)
class Mask:
    def __call__(self, study):
        return replace(study, visits=(replace(study.visits[0], brain=head()[1]),))


def through(visit, *steps):
    stages, study = Stages(visit, "flair"), Study("s", (visit,))
    for step in steps:
        study = step(study)
        stages.add(step, study.visits[0])
    return stages.all()


def test_every_step_that_changes_something_is_shown():
    found = through(head()[0], Mask(), N4(), CropToBrain(), Resample(2.0), ZScore("all"))
    assert [stage.step for stage in found] == [
        "as read",
        "Mask()",
        "N4()",
        "CropToBrain()",
        "Resample(spacing_mm=2.0)",
        "ZScore(within='all')",
    ]


def test_a_step_that_leaves_the_visit_alone_is_not_shown():
    found = through(head()[0], Mask(), lambda study: study)
    assert [stage.step for stage in found] == ["as read", "Mask()"]


def test_the_mask_is_drawn_where_it_was_made_alone():
    found = through(head()[0], Mask(), ZScore("brain"))
    assert [stage.brain is not None for stage in found] == [False, True, False]


def test_all_stages_show_the_same_place():
    @dataclass(frozen=True)
    class Move:
        def __call__(self, study):
            (visit,) = study.visits
            shift = np.eye(4)
            shift[:3, 3] = 7, -20, 11
            grid = Grid(GRID.shape, np.linalg.inv(shift) @ GRID.affine)
            scans = {"flair": Volume(visit.scans["flair"].array, grid)}
            moved = replace(visit, scans=scans, brain=Volume(visit.brain.array, grid))
            return replace(study, visits=(replace(moved, to_native=visit.to_native @ shift),))

    _, mask, moved = through(head()[0], Mask(), Move())
    for before, after in zip(mask.slices, moved.slices, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-3)


def test_the_front_is_at_the_top_of_the_axial_slice():
    axial = through(head()[0], Mask())[0].slices[0]
    rows = len(axial) // 2
    assert np.nanmax(axial[: rows - 5]) == pytest.approx(200)
    assert np.nanmax(axial[rows + 5 :]) == pytest.approx(100)


def test_black_and_white_are_those_of_the_brain():
    visit, brain = head()
    bright = visit.scans["flair"].array.copy()
    bright[~ndimage.binary_dilation(brain.array, iterations=2)] = 900
    found = through(replace(visit, scans={"flair": Volume(bright, GRID)}), Mask())
    assert found[0].window[0] < 100
    assert found[0].window[1] == pytest.approx(200, abs=1)


def test_without_a_brain_the_bright_part_is_shown():
    found = through(head()[0], Resample(4.0))
    assert len(found) == 2
    assert all(np.nanmax(panel) > 90 for stage in found for panel in stage.slices)


def test_a_picture_is_webp_and_small():
    picture = through(head()[0], Mask())[1].webp()
    assert picture[:4] == b"RIFF"
    assert len(picture) < 30_000


def test_steps_are_written_with_what_is_not_default():
    assert step_text(ZScore(within="tissue", zero_outside=True)) == (
        "ZScore(within='tissue', zero_outside=True)"
    )
    assert step_text(N4()) == "N4()"
    assert step_text(partial(print)) == "partial"


def test_visits_that_agree_are_gray_and_others_are_not():
    from io import BytesIO

    from PIL import Image

    visit, brain = head()
    scan = visit.scans["flair"]
    shift = np.eye(4)
    shift[1, 3] = 12.0

    def colors(later, world):
        picture = Image.open(BytesIO(overlaid(scan, brain, later, world))).convert("RGB")
        rgb = np.asarray(picture).astype(int)
        return np.abs(rgb[..., 0] - rgb[..., 1]).mean()

    moved = Volume(scan.array, Grid(GRID.shape, shift @ GRID.affine))
    assert colors(scan, np.eye(4)) < 1
    assert colors(moved, np.eye(4)) > 5
    assert colors(moved, shift) < 1


def test_movement_is_told_in_degrees_and_mm():
    _, brain = head()
    angle = np.deg2rad(10)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    middle = brain.grid.world_mm(np.argwhere(brain.array).mean(axis=0)[None])[0]
    turn[:3, 3] = middle - turn[:3, :3] @ middle + [3, 0, 4]
    assert moved_by(brain, turn) == pytest.approx((10, 5))
