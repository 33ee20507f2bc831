import cc3d
import numpy as np
import pytest

from lesionwise.simulate.lesions import (
    LesionSettings,
    Unit,
    describe,
    draw_fates,
    paint,
    place_lesions,
)


def _unit(label, center, radius_vox, volumes, shape=(24, 24, 24)):
    """A ball: the score is the distance to its surface."""
    index = np.indices(shape).astype(np.float32)
    away = np.sqrt(sum((index[a] - center[a]) ** 2 for a in range(3)))
    box = tuple(slice(0, n) for n in shape)
    score = (radius_vox - away).astype(np.float32)
    return Unit(label, 1, "deep white matter", box, score, volumes, 1.0)


def test_a_unit_has_as_many_voxels_as_its_volume():
    unit = _unit(1, (12.137, 11.713, 12.379), 5, (123.0,))
    assert (paint([unit], 0, (24, 24, 24)).labels == 1).sum() == 123


def test_an_absent_unit_leaves_nothing():
    unit = _unit(1, (12.137, 11.713, 12.379), 5, (50.0, 0.0))
    painted = paint([unit], 1, (24, 24, 24))
    assert not painted.labels.any()
    assert painted.fraction.max() < 0.5


def test_a_growing_unit_contains_its_former_self():
    unit = _unit(1, (12.137, 11.713, 12.379), 5, (60.0, 120.0))
    before, after = (paint([unit], visit, (24, 24, 24)).labels > 0 for visit in (0, 1))
    assert after.sum() == 120
    assert not (before & ~after).any()


def test_fraction_exceeds_half_exactly_on_lesions():
    units = [_unit(1, (9.2, 12.1, 12.4), 4, (200.0,)), _unit(2, (14.3, 12, 12), 4, (150.0,))]
    painted = paint(units, 0, (24, 24, 24), edge_per_mm=0.4)
    np.testing.assert_array_equal(painted.fraction > 0.5, painted.labels > 0)


def test_overlapping_units_meet_halfway():
    units = [_unit(1, (8, 12, 12), 5, (515.0,)), _unit(2, (15, 12, 12), 5, (515.0,))]
    labels = paint(units, 0, (24, 24, 24)).labels
    assert set(np.unique(labels[:12])) == {0, 1}
    assert set(np.unique(labels[12:])) == {0, 2}
    assert cc3d.connected_components(labels > 0, connectivity=26).max() == 1


def test_a_unit_cut_in_two_keeps_one_piece():
    thin = np.full((15, 9, 9), -np.inf, dtype=np.float32)
    thin[:, 4, 4] = np.linspace(2, 1, 15)
    rod = Unit(1, 1, "", (slice(0, 15), slice(0, 9), slice(0, 9)), thin, (15.0,), 1.0)
    ball = _unit(2, (7, 4, 4), 3, (33.0,), (15, 9, 9))
    labels = paint([rod, ball], 0, (15, 9, 9)).labels
    assert (labels == 2).sum() >= 33
    assert cc3d.connected_components(labels == 1, connectivity=26).max() == 1


@pytest.fixture(scope="module")
def planted(toy):
    units = []
    for seed in range(8):  # until one has a confluent group
        units = place_lesions(
            np.random.default_rng(seed), toy, 2, LesionSettings(max_components=25)
        )
        groups = [u.group for u in units]
        if len(groups) > len(set(groups)):
            break
    return units


def test_planting_is_repeatable(toy):
    a, b = (place_lesions(np.random.default_rng(2), toy, 2) for _ in range(2))
    assert [u.volumes_mm3 for u in a] == [u.volumes_mm3 for u in b]
    np.testing.assert_array_equal(
        paint(a, 1, toy.white.shape).labels, paint(b, 1, toy.white.shape).labels
    )


def test_lesions_lie_in_tissue(toy, planted):
    for visit in (0, 1):
        labels = paint(planted, visit, toy.white.shape).labels
        assert (toy.white + toy.gray)[labels > 0].min() > 0.5


def test_every_label_is_one_piece(toy, planted):
    for visit in (0, 1):
        labels = paint(planted, visit, toy.white.shape).labels
        for label in np.unique(labels[labels > 0]):
            assert cc3d.connected_components(labels == label, connectivity=26).max() == 1


def test_groups_touch_and_others_do_not(toy, planted):
    """With every unit at its largest, planted groups are the connected components."""
    full = [
        Unit(u.label, u.group, u.place, u.box, u.score, (max(u.volumes_mm3),), u.brightness)
        for u in planted
    ]
    labels = paint(full, 0, toy.white.shape).labels
    rows = describe(full, labels, lambda voxels: "")
    by_component = {}
    for row in rows.values():
        by_component.setdefault(row["group"], []).append(row["planted_group"])
    assert max(len(members) for members in by_component.values()) > 1
    assert all(len(set(members)) == 1 for members in by_component.values())
    assert len(by_component) == len({row["planted_group"] for row in rows.values()})


def test_confluent_groups_hold_two_to_six_units(planted):
    sizes = np.bincount([unit.group for unit in planted])
    assert sizes.max() <= 6


def test_a_single_visit_has_no_fate():
    fates = draw_fates(np.random.default_rng(0), 3, 1, LesionSettings())
    np.testing.assert_array_equal(fates, np.ones((3, 1)))


def test_every_unit_is_there_at_some_visit():
    rng = np.random.default_rng(0)
    settings = LesionSettings(new_rate=0.5, gone_rate=0.5)
    for _ in range(200):
        assert (draw_fates(rng, 2, 3, settings).max(axis=1) > 0).all()


def test_rates_of_new_and_gone_are_those_asked_for():
    rng = np.random.default_rng(0)
    settings = LesionSettings(new_rate=0.3, gone_rate=0.2)
    fates = np.concatenate([draw_fates(rng, 1, 2, settings) for _ in range(4000)])
    # binomial SD at most sqrt(0.25 / 4000) = 0.008
    assert abs((fates[:, 0] == 0).mean() - 0.3) < 0.04
    assert abs((fates[:, 1] == 0).mean() - 0.2) < 0.04
