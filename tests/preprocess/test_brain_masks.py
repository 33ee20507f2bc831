"""Other brain masks: by template, threshold, another program; joined, widened, applied."""

import os
import sys

import numpy as np
import pytest

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.brain import NoBrainFound, dilated
from lesionwise.preprocess.brain_masks import (
    BetBrain,
    ExternalBrain,
    MaskToBrain,
    OtsuBrain,
    SharedBrain,
    TemplateMaskBrain,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def volume(array, spacing=(1.0, 1.0, 1.0)):
    return Volume(np.asarray(array), Grid(np.shape(array), np.diag([*spacing, 1.0])))


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def ball_in_a_shell(shape=(50, 50, 50), spacing_mm=4.0):
    """A bright ball of 60 mm radius with a dark middle, and 6 mm of bright skin around a gap."""
    middle = (np.array(shape) - 1) / 2
    radius = np.linalg.norm((np.indices(shape).T - middle).T, axis=0) * spacing_mm
    brain = radius < 60
    array = np.where(brain & (radius > 10), 100.0, 0.0) + 80.0 * ((radius > 76) & (radius < 82))
    return volume(array.astype(np.float32), (spacing_mm,) * 3), brain


def visit(scan=None, brain=None, session=""):
    scan = scan if scan is not None else volume(np.ones(brain.grid.shape, np.float32))
    return Visit({"flair": scan}, {}, brain, session)


def line(*on, n=8):
    array = np.zeros((n, 1, 1), bool)
    array[list(on)] = True
    return volume(array)


def test_otsu_keeps_the_ball_without_the_skin_and_fills_it():
    scan, brain = ball_in_a_shell()
    mask = OtsuBrain(radius_mm=8.0)(Study("01", (visit(scan),))).visits[0].brain
    assert mask.array.dtype == bool
    assert dice(mask.array, brain) > 0.95
    assert mask.array[25, 25, 25]


def test_otsu_takes_what_is_bright_in_both_visits():
    scan, brain = ball_in_a_shell()
    half = np.array(scan.array)
    half[:25] = 0
    after = OtsuBrain(radius_mm=8.0)(Study("01", (visit(scan), visit(volume(half, (4, 4, 4))))))
    for each in after.visits:
        assert not each.brain.array[:24].any()
        assert each.brain.array[30:].sum() > 0.8 * brain[30:].sum()


def test_otsu_refuses_a_scan_without_anything_thick():
    scan = volume(np.eye(8, dtype=np.float32)[:, :, None].repeat(8, axis=2), (4, 4, 4))
    with pytest.raises(NoBrainFound, match=r"^07 flair: no brain found \(nothing bright"):
        OtsuBrain()(Study("07", (visit(scan),)))


@pytest.mark.parametrize(
    ("of", "expected"),
    [("union", (1, 2, 3, 4)), ("intersection", (2, 3)), ("first", (1, 2, 3)), ("last", (2, 3, 4))],
)
def test_masks_are_shared(of, expected):
    study = Study("01", (visit(brain=line(1, 2, 3)), visit(brain=line(2, 3, 4))))
    for each in SharedBrain(of)(study).visits:
        np.testing.assert_array_equal(each.brain.array, line(*expected).array)


def test_a_shared_mask_lies_on_each_visits_own_grid():
    fine = volume(np.arange(16).reshape(16, 1, 1) < 6, (0.5, 1, 1))
    study = Study("01", (visit(brain=line(0, 1)), visit(brain=fine)))
    first, last = SharedBrain("union")(study).visits
    assert first.brain.grid is study.visits[0].brain.grid
    assert last.brain.grid is fine.grid
    # voxels of the fine grid whose center lies in 0 or 1 of the coarse one, and its own six
    np.testing.assert_array_equal(last.brain.array.ravel(), np.arange(16) < 6)
    np.testing.assert_array_equal(first.brain.array.ravel(), np.arange(8) < 3)


def test_sharing_needs_masks_and_something_in_common():
    with pytest.raises(InputError, match=r"^07 M12: no brain mask"):
        SharedBrain()(Study("07", (visit(brain=line(1)), visit(line(1), None, "M12"))))
    with pytest.raises(InputError, match=r"^07: the intersection of brain masks is empty"):
        SharedBrain("intersection")(Study("07", (visit(brain=line(1)), visit(brain=line(2)))))


def test_a_missing_mask_does_not_matter_where_it_does_not_count():
    study = Study("07", (visit(line(1)), visit(brain=line(2))))
    np.testing.assert_array_equal(SharedBrain("last")(study).visits[0].brain.array, line(2).array)


def test_growing_counts_millimeters_along_each_axis():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    grown = dilated(mask, 2.0, volume(mask, (1.0, 2.0, 5.0)).grid)
    assert grown.sum() == 5 + 2  # two on each side along i, one along j, none along k
    assert grown[2:7, 4, 4].all()
    assert grown[4, 3:6, 4].all()


def test_scans_are_masked_and_labels_are_not():
    scan = volume(np.arange(1, 9, dtype=np.uint16).reshape(8, 1, 1))
    labels = {"lesions": line(0)}
    study = Study("01", (Visit({"flair": scan}, labels, line(2, 3)),))
    after = MaskToBrain()(study).visits[0]
    np.testing.assert_array_equal(after.scans["flair"].array.ravel(), [0, 0, 3, 4, 0, 0, 0, 0])
    assert after.scans["flair"].array.dtype == np.uint16
    assert after.labels is labels


PROGRAM = """
import sys, nibabel, numpy
image = nibabel.load(sys.argv[1])
mask = (numpy.asarray(image.dataobj) > 2).astype('uint8')
nibabel.save(nibabel.Nifti1Image(mask, image.affine), sys.argv[2])
"""


def command(tmp_path, program):
    path = tmp_path / "strip tool.py"
    path.write_text(program)
    return f"'{sys.executable}' '{path}' {{scan}} {{mask}}"


def test_another_program_makes_the_mask(tmp_path):
    affine = np.array([[0, 2.0, 0, 5], [-1, 0, 0, 3], [0, 0, 1.5, -7], [0, 0, 0, 1]])
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scan = Volume(array, Grid(array.shape, affine))
    brain = ExternalBrain(command(tmp_path, PROGRAM))(Study("01", (visit(scan),))).visits[0].brain
    np.testing.assert_array_equal(brain.array, array > 2)
    assert brain.grid is scan.grid


def test_a_program_reads_nothing_of_the_callers_input(tmp_path):
    """As in ``while read scan; do lesionwise segment …; done < list``."""
    reader, writer = os.pipe()
    os.write(writer, b"next scan")
    os.close(writer)
    own = os.dup(0)
    os.dup2(reader, 0)
    try:
        step = ExternalBrain(command(tmp_path, "import sys; sys.stdin.read()" + PROGRAM))
        step(Study("01", (visit(volume(np.arange(8, dtype=np.float32).reshape(8, 1, 1))),)))
        assert os.read(0, 20) == b"next scan"
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(reader)


def test_a_program_that_fails_or_is_missing_or_leaves_nothing_is_named(tmp_path):
    study = Study("07", (visit(line(1)),))
    with pytest.raises(InputError, match=r"^07 flair: the program no-such-tool is not installed"):
        ExternalBrain("no-such-tool {scan} {mask}")(study)
    failing = command(tmp_path, "raise SystemExit('out of luck')")
    with pytest.raises(InputError, match=r"failed \(out of luck\)"):
        ExternalBrain(failing)(study)
    with pytest.raises(InputError, match=r"left no mask\.nii\.gz"):
        ExternalBrain(command(tmp_path, "pass"))(study)


def test_given_masks_are_left_alone():
    study = Study("01", (visit(brain=line(2)),))
    for step in (OtsuBrain(), TemplateMaskBrain(), BetBrain(), ExternalBrain("no-such-tool")):
        assert step(study).visits[0].brain is study.visits[0].brain


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "least"), [(TemplateMaskBrain(), 0.94), (OtsuBrain(), 0.85), (BetBrain(), 0.9)]
)
def test_real_scans(shared, supplied_mask, step, least):
    path = "data/sub-openlong12/ses-01/anat/sub-openlong12_ses-01_FLAIR.nii.gz"
    scan = read_volume(shared(path))
    brain = step(Study("01", (visit(scan),))).visits[0].brain
    assert dice(brain.array, supplied_mask("openlong12", "01", scan.grid)) > least
