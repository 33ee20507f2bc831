import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis.extra.numpy import arrays
from peers import anima_distances, directed_averages_mm
from scipy import ndimage

from lesionwise.metrics import surface
from lesionwise.metrics.score import Undefined

MM = (1.0, 1.0, 1.0)
masks = arrays(np.bool_, (5, 4, 6))


def box(shape: tuple[int, int, int], *spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in spans)] = True
    return mask


# One voxel at 0 and three at 3, 4 and 5 along i.
ONE = box((8, 1, 1), (0, 1), (0, 1), (0, 1))
THREE = box((8, 1, 1), (3, 6), (0, 1), (0, 1))


def test_edges_are_voxels_with_a_background_face():
    cube = box((5, 5, 5), (1, 4), (1, 4), (1, 4))
    edge = surface.edge_voxels(cube)
    assert edge.sum() == 26
    assert not edge[2, 2, 2]
    notched = cube.copy()
    notched[1, 1, 1] = False  # an edge neighbor of the center's face neighbors, not a face
    assert not surface.edge_voxels(notched)[2, 2, 2]


@settings(deadline=None)
@given(masks)
def test_edges_are_what_erosion_takes(mask):
    cross = ndimage.generate_binary_structure(3, 1)
    assert (surface.edge_voxels(mask) == mask & ~ndimage.binary_erosion(mask, cross)).all()


def test_distances_by_hand():
    found = surface.distances_between_edges(ONE, THREE, (2.0, 1.0, 1.0))
    assert found.reference_to_prediction.tolist() == [6.0]
    assert found.prediction_to_reference.tolist() == [6.0, 8.0, 10.0]


def test_one_voxel_is_exactly_one_spacing_anywhere():
    # 0.7 * 3 - 0.7 * 2 is not 0.7 in floating point.
    for at in range(6):
        one = box((8, 1, 1), (at, at + 1), (0, 1), (0, 1))
        other = box((8, 1, 1), (at + 1, at + 2), (0, 1), (0, 1))
        found = surface.distances_between_edges(one, other, (0.7, 1.0, 1.0))
        assert surface.surface_dice(found, 0.7) == 1.0


def test_every_definition_by_hand():
    found = surface.distances_between_edges(ONE, THREE, MM)  # 3 | 3, 4, 5
    assert surface.hausdorff_mm(found, 100) == 5.0
    assert surface.hausdorff_mm(found, 50, "larger_directed") == 4.0
    assert surface.hausdorff_mm(found, 50, "pooled") == 3.5
    assert surface.average_surface_distance_mm(found, "pooled") == 15 / 4
    assert surface.average_surface_distance_mm(found, "mean_of_directed") == (3 + 4) / 2
    assert surface.average_surface_distance_mm(found, "larger_directed") == 4.0
    assert directed_averages_mm(found) == (3.0, 4.0)
    assert surface.surface_dice(found, 3.0) == 2 / 4
    assert surface.surface_dice(found, 3.0, "mean_of_directed") == (1 + 1 / 3) / 2


def test_a_single_voxel_has_the_surface_of_an_octahedron():
    found = surface.distances_between_elements(ONE, ONE, (1.0, 2.0, 3.0))
    # Its triangles join the middles of the steps to the six neighbors, at half the spacing.
    normal = math.hypot(2 * 3, 1 * 3, 1 * 2) / 4 / 2
    assert found.reference_area.tolist() == pytest.approx([normal] * 8)


def test_a_flat_face_has_its_own_area():
    slab = box((4, 6, 6), (1, 3), (0, 6), (0, 6))
    found = surface.distances_between_elements(slab, slab, (1.0, 2.0, 3.0))
    code = surface._corner_codes(slab)
    inner = (code == 0b00001111) | (code == 0b11110000)
    areas = surface._element_areas(tuple(np.diag([1.0, 2.0, 3.0]).ravel()))[code[inner]]
    assert set(areas.round(12)) == {6.0}
    assert len(found.reference_area) == np.count_nonzero((code != 0) & (code != 255))


SHEARED = np.array([[1.0, 0.0, 0.6], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
"""Steps along i, j, k as columns; k leans by 11 degrees."""


def test_distances_follow_sheared_axes():
    one = box((20, 3, 5), (10, 11), (1, 2), (1, 2))
    other = box((20, 3, 5), (16, 17), (1, 2), (3, 4))
    found = surface.distances_between_edges(one, other, SHEARED)
    expected = math.hypot(6 + 2 * 0.6, 2 * 3)  # 9.37 mm, not the 8.57 mm of straight axes
    assert found.reference_to_prediction.tolist() == pytest.approx([expected])
    assert found.prediction_to_reference.tolist() == pytest.approx([expected])
    elements = surface.distances_between_elements(one, other, SHEARED)
    assert surface.hausdorff_mm(elements, 100, "area_weighted") <= expected


def test_the_nearest_voxel_on_sheared_axes_need_not_be_nearest_in_steps():
    # From (5, 0, 0) on leaning axes: (5, 0, 1) is at (0.9, 1) and (4, 0, 1) at (-0.1, 1).
    leaning = np.array([[1.0, 0.0, 0.9], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    one = box((9, 1, 2), (5, 6), (0, 1), (0, 1))
    other = box((9, 1, 2), (4, 6), (0, 1), (1, 2))
    found = surface.distances_between_edges(one, other, leaning)
    assert found.reference_to_prediction.tolist() == pytest.approx([math.hypot(0.1, 1)])


def test_sheared_faces_have_the_area_of_their_parallelograms():
    slab = box((4, 6, 6), (1, 3), (0, 6), (0, 6))  # faces across i, spanned by j and k
    code = surface._corner_codes(slab)
    inner = (code == 0b00001111) | (code == 0b11110000)
    areas = surface._element_areas(tuple(SHEARED.ravel()))[code[inner]]
    assert areas == pytest.approx(np.full(len(areas), math.hypot(0.6, 3.0)))


def test_area_weighs_elements():
    found = surface.SurfaceDistances(
        np.array([1.0, 5.0]), np.array([2.0]), np.array([9.0, 1.0]), np.array([10.0])
    )
    assert surface.hausdorff_mm(found, 90, "area_weighted") == 2.0
    assert surface.hausdorff_mm(found, 95, "area_weighted") == 5.0
    assert surface.average_surface_distance_mm(found, "area_weighted") == (9 + 5 + 20) / 20
    assert surface.surface_dice(found, 1.0) == 9 / 20


def test_area_weighted_needs_areas():
    found = surface.distances_between_edges(ONE, THREE, MM)
    with pytest.raises(ValueError, match="elements"):
        surface.hausdorff_mm(found, 95, "area_weighted")
    with pytest.raises(ValueError, match="elements"):
        surface.average_surface_distance_mm(found, "area_weighted")


@pytest.mark.parametrize(
    "between", [surface.distances_between_edges, surface.distances_between_elements]
)
def test_empty_masks_have_no_distance(between):
    empty = np.zeros_like(ONE)
    for reference, prediction, who in (
        (empty, ONE, "the reference has"),
        (ONE, empty, "the prediction has"),
        (empty, empty, "both have"),
    ):
        found = between(reference, prediction, MM)
        expected = Undefined(f"a mask has no surface: {who} no lesion voxel")
        assert surface.hausdorff_mm(found) == expected
        assert surface.average_surface_distance_mm(found) == expected
    assert surface.surface_dice(between(empty, ONE, MM), 1.0) == 0.0
    assert isinstance(surface.surface_dice(between(empty, empty, MM), 1.0), Undefined)


def test_the_evaluator_measures_to_masks_not_surfaces():
    large = box((9, 9, 9), (1, 8), (1, 8), (1, 8))
    small = box((9, 9, 9), (4, 5), (4, 5), (4, 5))
    found = anima_distances(small, large, MM)
    assert found.hausdorff == pytest.approx(math.sqrt(27))
    inside = surface.distances_between_edges(small, large, MM)
    assert surface.hausdorff_mm(inside, 100) == pytest.approx(math.sqrt(27))
    assert inside.reference_to_prediction.tolist() == [3.0]  # 0 for the evaluator


def test_the_evaluator_s_average_never_rises_along_the_scan():
    # Contour distances along i: 3 | 3, 4, 5; the running minimum keeps 3.
    assert anima_distances(ONE, THREE, MM).surface_distance == 3.0
    assert anima_distances(ONE, THREE, MM).contour_mean == 4.0


def test_a_mask_that_fills_the_volume_has_no_contour_for_the_evaluator():
    full = np.ones((3, 3, 3), dtype=bool)
    found = anima_distances(full, full, MM)
    assert found.hausdorff == 0.0
    assert isinstance(found.contour_mean, Undefined)
    assert isinstance(anima_distances(full, ~full, MM).hausdorff, Undefined)


@settings(max_examples=50, deadline=None)
@given(masks, masks)
def test_distances_equal_a_full_search(reference, prediction):
    assume(reference.any() and prediction.any())
    spacing = np.array([0.9, 1.0, 3.0])
    found = surface.distances_between_edges(reference, prediction, tuple(spacing))
    one, other = (np.argwhere(surface.edge_voxels(m)) * spacing for m in (reference, prediction))
    every = np.linalg.norm(one[:, None] - other[None], axis=2)
    assert np.allclose(found.reference_to_prediction, every.min(axis=1), rtol=1e-12)
    assert np.allclose(found.prediction_to_reference, every.min(axis=0), rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(masks, masks)
def test_symmetric_measures_are_symmetric(reference, prediction):
    assume(reference.any() and prediction.any())
    for between in (surface.distances_between_edges, surface.distances_between_elements):
        one = between(reference, prediction, MM)
        other = between(prediction, reference, MM)
        for hd95 in surface.HAUSDORFF_DEFINITIONS:
            if hd95 != "area_weighted" or one.reference_area is not None:
                ours = surface.hausdorff_mm(one, 95, hd95)
                assert ours == pytest.approx(surface.hausdorff_mm(other, 95, hd95))
        for assd in surface.AVERAGE_DEFINITIONS:
            if assd != "area_weighted" or one.reference_area is not None:
                ours = surface.average_surface_distance_mm(one, assd)
                assert ours == pytest.approx(surface.average_surface_distance_mm(other, assd))


@settings(max_examples=50, deadline=None)
@given(masks)
def test_identical_masks_are_no_distance_apart(mask):
    assume(mask.any())
    found = surface.distances_between_edges(mask, mask, MM)
    assert surface.hausdorff_mm(found, 100) == 0.0
    assert surface.surface_dice(found, 0.0) == 1.0


@settings(max_examples=50, deadline=None)
@given(masks, masks)
def test_percentiles_rise_and_stay_below_the_largest(reference, prediction):
    assume(reference.any() and prediction.any())
    found = surface.distances_between_edges(reference, prediction, MM)
    for definition in ("larger_directed", "pooled"):
        values = [surface.hausdorff_mm(found, p, definition) for p in (50, 95, 100)]
        assert values == sorted(values)
    assert surface.average_surface_distance_mm(found) <= values[-1]


def test_distances_of_the_official_evaluator(peer_case, agree):
    theirs = peer_case.peer("anima")["runs"]["default"]["results"]
    ours = anima_distances(*peer_case.masks, peer_case.spacing_mm)
    assert agree(ours.hausdorff, theirs.get("HausdorffDistance"), 1e-5)
    assert agree(ours.contour_mean, theirs.get("ContourMeanDistance"), 1e-5)
    assert agree(ours.surface_distance, theirs.get("SurfaceDistance"), 1e-5)


def test_distances_of_medpy(peer_case, agree):
    theirs = peer_case.peer("surface")["medpy"]["results"]
    for unit, spacing in (("mm", peer_case.spacing_mm), ("voxels", MM)):
        found = surface.distances_between_edges(*peer_case.masks, spacing)
        assert agree(surface.hausdorff_mm(found, 100, "pooled"), theirs[f"hd_{unit}"], 1e-5)
        assert agree(surface.hausdorff_mm(found, 95, "pooled"), theirs[f"hd95_{unit}"], 1e-5)
        average = surface.average_surface_distance_mm(found, "pooled")
        assert agree(average, theirs[f"assd_{unit}"], 1e-5)
    found = surface.distances_between_edges(*peer_case.masks, peer_case.spacing_mm)
    from_reference, from_prediction = directed_averages_mm(found)
    assert agree(from_reference, theirs["asd_ref_to_pred_mm"], 1e-5)
    assert agree(from_prediction, theirs["asd_pred_to_ref_mm"], 1e-5)


def test_distances_of_monai(peer_case, agree):
    theirs = peer_case.peer("surface")["monai"]["results"]
    found = surface.distances_between_edges(*peer_case.masks, peer_case.spacing_mm)
    assert agree(surface.hausdorff_mm(found, 100, "larger_directed"), theirs["hd_mm"], 1e-4)
    assert agree(surface.hausdorff_mm(found, 95, "larger_directed"), theirs["hd95_mm"], 1e-4)
    average = surface.average_surface_distance_mm(found, "pooled")
    assert agree(average, theirs["asd_symmetric_mm"], 1e-4)
    assert agree(directed_averages_mm(found)[1], theirs["asd_pred_to_ref_mm"], 1e-4)
    if found.defined:
        directed = np.percentile(found.prediction_to_reference, 95)
        assert agree(float(directed), theirs["hd95_directed_pred_to_ref_mm"], 1e-4)
    for tolerance_mm in (1, 3):
        ours = surface.surface_dice(found, tolerance_mm)
        assert agree(ours, theirs[f"surface_dice_{tolerance_mm}mm"], 1e-4)


def test_distances_of_deepmind_s_surface_distance(peer_case, agree):
    theirs = peer_case.peer("surface")["surface_distance"]["results"]
    found = surface.distances_between_elements(*peer_case.masks, peer_case.spacing_mm)
    assert agree(surface.hausdorff_mm(found, 100, "area_weighted"), theirs["hd100_mm"], 1e-5)
    assert agree(surface.hausdorff_mm(found, 95, "area_weighted"), theirs["hd95_mm"], 1e-5)
    from_reference, from_prediction = directed_averages_mm(found)
    assert agree(from_reference, theirs["asd_ref_to_pred_mm"], 1e-5)
    assert agree(from_prediction, theirs["asd_pred_to_ref_mm"], 1e-5)
    for tolerance_mm in (1, 3):
        ours = surface.surface_dice(found, tolerance_mm)
        assert agree(ours, theirs[f"surface_dice_{tolerance_mm}mm"], 1e-5)
