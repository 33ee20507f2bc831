import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.change.features import (
    ELLIPSE,
    ELLIPSOID,
    CandidateFeatures,
    FeatureTable,
    VoxelNeighborhood,
    axis_lengths,
    contrast,
    sphericity,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def box(shape, *spans):
    labels = np.zeros(shape, dtype=np.int32)
    for number, span in enumerate(spans, start=1):
        labels[tuple(slice(a, b) for a, b in span)] = number
    return labels


def pair(before, after, *, spacing=(1.0, 1.0, 1.0), brain=None, tissue=None):
    grid = Grid(before.shape, np.diag([*spacing, 1.0]))
    mask = None if brain is None else Volume(brain, grid)
    labels = {} if tissue is None else {"tissue": Volume(tissue, grid)}
    return Study(
        "a",
        (
            Visit({"flair": Volume(before.astype(np.float32), grid)}, labels, mask),
            Visit({"flair": Volume(after.astype(np.float32), grid)}, {}, mask),
        ),
    )


def lengths(labels, spacing, scale):
    index = np.argwhere(labels) * np.array(spacing)
    return axis_lengths(index, labels[labels > 0].astype(np.int64) - 1, labels.max(), scale)


def test_axes_of_a_row_of_voxels():
    # three centers at -1, 0 and 1 along j: variance 2/3; nothing along i and k
    found = lengths(box((5, 5, 5), ((1, 2), (1, 4), (2, 3))), (1, 1, 1), ELLIPSE)
    np.testing.assert_allclose(found, [[0, 0, 4 * np.sqrt(2 / 3)]], atol=1e-12)


def test_axes_of_a_block_scale_with_the_spacing():
    # n voxels of side s spread with a variance of (n² - 1) s² / 12
    found = lengths(box((6, 6, 6), ((0, 2), (0, 3), (0, 5))), (3.0, 1.0, 0.5), ELLIPSOID)
    expected = [ELLIPSOID * np.sqrt((n * n - 1) / 12) * s for n, s in ((3, 1.0), (5, 0.5), (2, 3))]
    np.testing.assert_allclose(found, [sorted(expected)])


def test_axes_follow_an_oblique_shape():
    labels = np.zeros((3, 3, 1), dtype=np.int32)
    labels[[0, 1, 2], [0, 1, 2], 0] = 1
    # distances from the center: √2, 0, √2
    np.testing.assert_allclose(lengths(labels, (1, 1, 1), 1.0), [[0, 0, np.sqrt(4 / 3)]], atol=1e-7)


def test_axes_of_a_ball_are_its_diameter():
    grid = np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0)
    found = lengths((grid <= 18).astype(np.int32), (1, 1, 1), ELLIPSOID)
    np.testing.assert_allclose(found, 36, rtol=0.01)


def test_axes_of_nothing():
    assert axis_lengths(np.empty((0, 3)), np.empty(0, dtype=np.int64), 0).shape == (0, 3)


def test_sphericity_of_one_voxel_is_that_of_an_octahedron():
    # half axes of 1/2: volume 1/6, surface √3
    found = sphericity(box((3, 3, 3), ((1, 2), (1, 2), (1, 2))), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(found, [np.cbrt(np.pi) / np.sqrt(3)], rtol=1e-6)


def test_sphericity_of_a_long_voxel():
    # half axes of 1/2, 1/2, 3/2: volume 1/2, eight triangles with sides √½, √2.5, √2.5
    found = sphericity(box((3, 3, 3), ((1, 2), (1, 2), (1, 2))), (1.0, 1.0, 3.0))
    area = 8 * (np.sqrt(0.5) * np.sqrt(2.5 - 0.125) / 2)
    np.testing.assert_allclose(found, [np.cbrt(36 * np.pi * 0.25) / area], rtol=1e-6)


def test_a_ball_is_more_spherical_than_a_rod():
    ball = (np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0) <= 8).astype(np.int32)
    rod = box((3, 3, 40), ((1, 2), (1, 2), (2, 38)))
    assert sphericity(ball, (1, 1, 1))[0] > 0.9 > 0.5 > sphericity(rod, (1, 1, 1))[0]


def test_sphericity_at_the_border_of_the_volume_is_the_same():
    inside = sphericity(box((4, 4, 4), ((1, 3), (1, 3), (1, 3))), (1, 1, 2))
    border = sphericity(box((2, 2, 2), ((0, 2), (0, 2), (0, 2))), (1, 1, 2))
    np.testing.assert_allclose(inside, border)


def test_contrast_is_taken_to_face_neighbors_in_the_brain():
    labels = box((5, 3, 1), ((1, 2), (1, 2), (0, 1)))
    image = np.full((5, 3, 1), 100.0, dtype=np.float32)
    image[1, 1, 0] = 7
    image[[0, 2], 1, 0] = 1
    image[1, 0, 0] = 4
    within = np.ones(image.shape, dtype=bool)
    within[1, 2, 0] = False  # so its 100 does not count
    np.testing.assert_allclose(contrast(labels, image, within), [7 - 2])


def test_contrast_without_surround_is_undefined():
    labels = np.ones((1, 1, 1), dtype=np.int32)
    assert np.isnan(contrast(labels, np.ones((1, 1, 1)), np.ones((1, 1, 1), bool))).all()


def test_another_candidate_is_no_surround():
    labels = box((1, 1, 4), ((0, 1), (0, 1), (1, 2)), ((0, 1), (0, 1), (2, 3)))
    image = np.array([[[1.0, 5.0, 50.0, 2.0]]])
    np.testing.assert_allclose(contrast(labels, image, np.ones(image.shape, bool)), [4, 48])


def test_the_share_in_white_matter_is_that_of_the_first_visit():
    labels = box((1, 1, 4), ((0, 1), (0, 1), (0, 4)))
    tissue = np.array([[[3, 3, 2, 1]]], dtype=np.uint8)
    flat = np.zeros(labels.shape)
    table = CandidateFeatures(("in_white",))(pair(flat, flat, tissue=tissue), labels)
    np.testing.assert_allclose(table.values, [[0.5]])


@pytest.mark.parametrize(
    ("name", "value"), [("touches_fluid", 1), ("touches_gray", 2), ("touches_other", 0)]
)
def test_what_lies_in_a_structure_or_beside_it_touches_it(name, value):
    tissue = np.full((3, 3, 9), 3, dtype=np.uint8)
    tissue[1, 1, 2] = value
    beside = ((1, 2), (1, 2), (3, 5))
    inside = ((1, 2), (1, 2), (1, 3))
    corner = ((0, 1), (0, 1), (3, 5))
    apart = ((1, 2), (1, 2), (5, 8))
    flat = np.zeros(tissue.shape)
    study = pair(flat, flat, tissue=tissue)
    touching = [
        CandidateFeatures((name,))(study, box(tissue.shape, span)).values[0, 0]
        for span in (beside, inside, corner, apart)
    ]
    assert touching == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["in_white", "touches_gray", "touches_fluid", "touches_other"])
def test_without_tissue_there_is_nothing_to_touch(name):
    labels = box((1, 1, 4), ((0, 1), (0, 1), (0, 4)))
    flat = np.zeros(labels.shape)
    with pytest.raises(InputError, match=f"sub-a: {name} needs the label tissue"):
        CandidateFeatures((name,))(pair(flat, flat), labels)


def test_what_was_bright_at_first_is_touched():
    before = np.zeros((20, 20, 20))
    before[3:7, 3:7, 3:7] = 10
    before[15, 15, 15] = 10  # a single voxel is noise
    half, noise = ((4, 6), (4, 6), (4, 6)), ((14, 17), (14, 17), (14, 17))
    outside = ((4, 6), (4, 6), (10, 12))
    table = CandidateFeatures(("touches_bright",))(
        pair(before, before), box(before.shape, half, outside, noise)
    )
    np.testing.assert_allclose(table.column("touches_bright"), [1, 0, 0])


def test_sizes_and_differences_by_candidate():
    labels = box((1, 1, 6), ((0, 1), (0, 1), (0, 2)), ((0, 1), (0, 1), (3, 6)))
    after = np.array([[[1.0, 3.0, 0, 5, 5, 8]]])
    features = CandidateFeatures(("voxels", "volume_mm3", "difference"))
    table = features(pair(np.zeros((1, 1, 6)), after, spacing=(1, 2, 3)), labels)
    np.testing.assert_allclose(table.values, [[2, 12, 2], [3, 18, 6]])


def test_no_candidate_gives_an_empty_table():
    flat = np.zeros((2, 2, 2))
    features = CandidateFeatures(("voxels", "sphericity", "contrast", "least_axis_mm"))
    table = features(pair(flat, flat), np.zeros((2, 2, 2), dtype=np.int32))
    assert table.values.shape == (0, 4)
    assert not table.painted(np.zeros(0), (2, 2, 2)).any()


def test_an_unknown_feature_is_refused():
    with pytest.raises(ValueError, match="no feature size"):
        CandidateFeatures(("size",))


def test_a_voxel_has_21_features_of_itself_and_its_six_neighbors():
    before = np.arange(27.0).reshape(3, 3, 3)
    labels = np.zeros((3, 3, 3), dtype=np.int32)
    labels[1, 1, 2] = 4
    table = VoxelNeighborhood()(pair(before, 100 + before**2), labels)
    assert len(table.names) == 21
    assert table.voxels.tolist() == list(range(27))
    at = np.array([13, 4, 22, 10, 16, 12, 14])  # center, i, i, j, j, k, k
    z = [(scan - scan.mean()) / scan.std() for scan in (before, before**2)]
    np.testing.assert_allclose(
        table.values[13],
        [*z[0].ravel()[at], *z[1].ravel()[at], 0, 0, 0, 0, 0, 0, 1],
        rtol=1e-5,
    )


def test_trees_see_z_scores_of_the_brain_whatever_the_scans_scale():
    """002:124: "normalised to have a zero mean and unit standard deviation"."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(100, 10, (2, 6, 6, 6))
    brain = rng.random((6, 6, 6)) < 0.5
    none = np.zeros(brain.shape, dtype=np.int32)
    table = VoxelNeighborhood()(pair(before, after, brain=brain), none)
    np.testing.assert_allclose(table.values[:, [0, 7]].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(table.values[:, [0, 7]].std(axis=0), 1, rtol=1e-5)
    scaled = VoxelNeighborhood()(pair(3 * before + 7, after / 5, brain=brain), none)
    np.testing.assert_allclose(scaled.values, table.values, atol=1e-4)


def test_a_constant_scan_is_one_line():
    flat = np.ones((2, 2, 2))
    with pytest.raises(InputError, match="sub-a: baseline: every voxel of the brain has the same"):
        VoxelNeighborhood()(pair(flat, flat), np.zeros((2, 2, 2), dtype=np.int32))


def test_beyond_the_volume_the_nearest_voxel_counts():
    before = np.array([[[1.0, 3.0]]])
    table = VoxelNeighborhood()(pair(before, before), np.zeros((1, 1, 2), dtype=np.int32))
    # center, i, i, j, j: itself; k - 1 and k + 1
    np.testing.assert_allclose(table.values[:, :7], [[-1] * 6 + [1], [1, 1, 1, 1, 1, -1, 1]])


def test_scores_are_painted_on_the_voxels_they_belong_to():
    table = FeatureTable(("x",), np.zeros((2, 1), np.float32), np.array([0, 3]), np.array([1, 1]))
    np.testing.assert_array_equal(
        table.painted(np.array([0.2, 0.5]), (2, 2, 1))[..., 0], [[0.5, 0], [0, 0.5]]
    )


def test_the_share_in_a_mask_is_taken_by_row():
    table = FeatureTable(("x",), np.zeros((2, 1), np.float32), np.arange(4), np.array([0, 0, 0, 1]))
    mask = np.array([True, False, False, True]).reshape(4, 1, 1)
    np.testing.assert_allclose(table.share_of(mask), [1 / 3, 1])


def test_visits_on_two_grids_are_one_line():
    flat = np.zeros((2, 2, 2))
    first, second = pair(flat, flat), pair(flat, flat, spacing=(1, 1, 2))
    mixed = Study("a", (first.visits[0], second.visits[1]))
    with pytest.raises(InputError, match="sub-a: its visits are on different grids"):
        VoxelNeighborhood()(mixed, np.zeros((2, 2, 2), dtype=np.int32))


@given(st.permutations([0, 1, 2]), st.integers(0, 2**32 - 1))
def test_shape_does_not_depend_on_the_order_of_axes(order, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((4, 5, 3)) < 0.6).astype(np.int32)
    labels[0, 0, 0] = 1
    spacing = np.array([1.0, 0.5, 3.0])
    turned = np.transpose(labels, order)
    np.testing.assert_allclose(
        lengths(labels, spacing, 1.0), lengths(turned, spacing[list(order)], 1.0), atol=1e-9
    )
