import numpy as np
import pytest

from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.location import (
    Landmarks,
    LocationRule,
    find_landmarks,
    locate_lesions,
)
from lesionwise.preprocess.template import template_maps
from lesionwise.types import Grid, InputError, Instances, Volume

KNOWN_MM = {
    1: ((-22, -30, 27), "periventricular"),
    2: ((20, 28, 6), "periventricular"),
    3: ((20, -62, -34), "infratentorial"),
    4: ((0, -26, -34), "infratentorial"),
    5: ((-38, 0, 52), "juxtacortical"),
    6: ((26, -28, 38), "deep white matter"),
}
"""Centers of small lesions in MNI mm, placed by eye."""


def _flair_of_template(spacing_mm: float) -> tuple[Volume, Volume]:
    """The template's own brain with dark fluid, and its mask."""
    maps = template_maps()
    size = np.array(maps.t1.grid.shape)
    shape = tuple(int(n) for n in np.ceil(size / spacing_mm))
    affine = maps.t1.grid.affine.copy()
    affine[:3, :3] *= spacing_mm
    grid = Grid(shape, affine)
    fluid = resample_to(maps.fluid, grid, order=1).array
    brain = resample_to(maps.brain, grid, order=0)
    return Volume(np.where(brain.array, 100 * (1 - fluid), 0).astype(np.float32), grid), brain


def _balls(grid: Grid, radius_mm: float = 3.0) -> Instances:
    labels = np.zeros(grid.shape, dtype=np.int32)
    world = grid.world_mm(np.indices(grid.shape).reshape(3, -1).T)
    for label, (center, _) in KNOWN_MM.items():
        near = ((world - np.array(center)) ** 2).sum(axis=1) < radius_mm**2
        labels.reshape(-1)[near] = label
    return Instances(labels, grid)


@pytest.fixture(scope="module")
def template_scan() -> tuple[Volume, Volume, Landmarks]:
    scan, brain = _flair_of_template(2.0)
    return scan, brain, find_landmarks(scan, brain, to_scan=np.eye(4))


def test_lesions_of_known_places_are_located(
    template_scan: tuple[Volume, Volume, Landmarks],
) -> None:
    scan, _, landmarks = template_scan
    found = locate_lesions(_balls(scan.grid), landmarks)
    assert found == {label: place for label, (_, place) in KNOWN_MM.items()}


@pytest.mark.parametrize("outside", ["zero", "as air"])
def test_a_z_scored_scan_has_the_same_fluid(
    template_scan: tuple[Volume, Volume, Landmarks], outside: str
) -> None:
    scan, brain, known = template_scan
    inside = brain.array != 0
    z_scored = (scan.array - scan.array[inside].mean()) / scan.array[inside].std()
    if outside == "zero":
        z_scored[~inside] = 0
    found = find_landmarks(Volume(z_scored, scan.grid), brain, to_scan=np.eye(4))
    same = np.isclose(found.sulcus_mm, known.sulcus_mm) & np.isclose(
        found.ventricle_mm, known.ventricle_mm
    )
    assert same[inside].mean() > 0.9
    assert locate_lesions(_balls(scan.grid), found) == {
        label: place for label, (_, place) in KNOWN_MM.items()
    }


def test_an_empty_brain_mask_is_refused(template_scan: tuple[Volume, Volume, Landmarks]) -> None:
    scan, brain, _ = template_scan
    empty = Volume(np.zeros_like(brain.array), brain.grid)
    with pytest.raises(InputError, match="the brain mask is empty"):
        find_landmarks(scan, empty, to_scan=np.eye(4))


def test_a_scan_that_lies_elsewhere_gives_the_same_places() -> None:
    scan, brain = _flair_of_template(2.0)
    turn = np.deg2rad(8)
    world = np.eye(4)
    world[1:3, 1:3] = 0.93 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    world[0, 0] = 0.93
    world[:3, 3] = 15, -8, 20
    lesions = _balls(scan.grid)
    grid = Grid(scan.grid.shape, world @ scan.grid.affine)
    landmarks = find_landmarks(Volume(scan.array, grid), Volume(brain.array, grid))
    found = locate_lesions(Instances(lesions.labels, grid), landmarks)
    assert found == {label: place for label, (_, place) in KNOWN_MM.items()}


def test_the_wider_ventricle_of_the_scan_counts(
    template_scan: tuple[Volume, Volume, Landmarks],
) -> None:
    scan, brain, _ = template_scan
    only_scan = LocationRule(template_ventricle_mm=0)
    lesion = np.zeros(scan.grid.shape, dtype=np.int32)
    at = np.rint(np.linalg.inv(scan.grid.affine) @ [30, -28, 28, 1])[:3].astype(int)
    lesion[tuple(at)] = 1
    instances = Instances(lesion, scan.grid)
    before = find_landmarks(scan, brain, to_scan=np.eye(4))
    assert locate_lesions(instances, before, only_scan)[1] == "deep white matter"
    wide = scan.array.copy()
    wide[at[0] - 3 : at[0], at[1] - 2 : at[1] + 3, at[2] - 2 : at[2] + 3] = 0
    after = find_landmarks(Volume(wide, scan.grid), brain, to_scan=np.eye(4))
    assert locate_lesions(instances, after, only_scan)[1] == "periventricular"


def test_without_lesions_there_is_no_place(
    template_scan: tuple[Volume, Volume, Landmarks],
) -> None:
    scan, _, landmarks = template_scan
    none = Instances(np.zeros(scan.grid.shape, dtype=np.int32), scan.grid)
    assert locate_lesions(none, landmarks) == {}


def test_lesions_on_another_grid_are_refused(
    template_scan: tuple[Volume, Volume, Landmarks],
) -> None:
    *_, landmarks = template_scan
    other = Grid((3, 3, 3), np.eye(4))
    with pytest.raises(ValueError, match="grid"):
        locate_lesions(Instances(np.zeros((3, 3, 3), dtype=np.int32), other), landmarks)
