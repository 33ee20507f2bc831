import cc3d
import numpy as np
import pytest

from lesionwise.simulate.patient import simulate_patient, state


def _arrays(patient, visit):
    labels = patient.study.visits[visit].labels
    return labels["instances"].array, labels["lesions"].array, labels["tissue"].array


@pytest.mark.parametrize("visit", [0, 1])
def test_the_mask_is_where_instances_are(patient, visit):
    instances, lesions, tissue = _arrays(patient, visit)
    assert lesions.any()
    np.testing.assert_array_equal(lesions, instances > 0)
    np.testing.assert_array_equal(tissue == 4, instances > 0)


@pytest.mark.parametrize("visit", [0, 1])
def test_the_table_lists_the_lesions_of_the_scan(patient, visit):
    instances, _, _ = _arrays(patient, visit)
    rows = {row["index"]: row for row in patient.lesions[visit]}
    assert set(rows) == set(np.unique(instances)) - {0}
    voxel = patient.study.visits[visit].scans["flair"].grid.voxel_volume_mm3
    for label, row in rows.items():
        assert row["volume_mm3"] == pytest.approx((instances == label).sum() * voxel, abs=0.01)


@pytest.mark.parametrize("visit", [0, 1])
def test_confluent_groups_are_connected_components(patient, visit):
    instances, _, _ = _arrays(patient, visit)
    parts = cc3d.connected_components(instances > 0, connectivity=26)
    for row in patient.lesions[visit]:
        own = np.unique(parts[instances == row["index"]])
        together = np.unique(instances[np.isin(parts, own) & (instances > 0)])
        if row["confluent_group"] == 0:
            assert list(together) == [row["index"]]
        elif len(own) == 1:  # thick slices may cut a lesion into pieces
            assert len(together) == row["units_in_group"] > 1


def test_new_and_gone_lesions_are_in_one_visit_only(patient):
    before, _, _ = _arrays(patient, 0)
    after, _, _ = _arrays(patient, 1)
    changes = {row["index"]: row["change"] for row in patient.lesions[1]}
    new = {label for label, change in changes.items() if change == "new"}
    assert not new & set(np.unique(before))
    assert not set(patient.disappeared[1]) & set(np.unique(after))
    np.testing.assert_array_equal(patient.study.changes["new"].array > 0, np.isin(after, list(new)))


def test_something_changes_and_most_is_stable(patient):
    states = [row["change"] for row in patient.lesions[1]]
    assert {"enlarging", "shrinking"} & set(states)
    assert states.count("stable") > len(states) / 2


def test_nothing_changed_before_the_first_visit(patient):
    assert {row["change"] for row in patient.lesions[0]} == {""}
    assert patient.disappeared[0] == ()


def test_change_maps_lie_on_the_last_visit(patient):
    for volume in patient.study.changes.values():
        assert volume.grid.matches(patient.study.followup.scans["flair"].grid)
    growing = patient.study.changes["enlarging"].array > 0
    assert (patient.study.followup.labels["lesions"].array[growing] == 1).all()


def test_the_scan_looks_like_flair(patient):
    visit = patient.study.baseline
    image = visit.scans["flair"].array
    tissue = visit.labels["tissue"].array
    fluid, gray, white, lesion = (np.median(image[tissue == label]) for label in (1, 2, 3, 4))
    assert fluid < 0.7 * white < white < gray
    assert lesion > 1.15 * white


def test_the_patient_lies_differently_at_each_visit(patient):
    a, b = (visit.scans["flair"].grid for visit in patient.study.visits)
    assert not a.matches(b, tolerance_mm=0.5)
    np.testing.assert_allclose(a.spacing_mm, (2, 2, 4))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 0, ""), (0, 5, "new"), (5, 0, "disappeared"), (100, 109, "stable"), (100, 92, "stable"),
        (100, 120, "enlarging"), (100, 80, "shrinking"),
    ],
)  # fmt: skip
def test_states(before, after, expected):
    assert state(before, after) == expected


def test_a_patient_has_a_visit():
    with pytest.raises(ValueError, match="at least one visit"):
        simulate_patient(0, 0)


@pytest.mark.slow
def test_same_seed_same_patient(patient):
    again = simulate_patient(5, 2, spacing_mm=(2.0, 2.0, 4.0))
    for a, b in zip(patient.study.visits, again.study.visits, strict=True):
        np.testing.assert_array_equal(a.scans["flair"].array, b.scans["flair"].array)
        np.testing.assert_array_equal(a.labels["instances"].array, b.labels["instances"].array)


@pytest.mark.slow
def test_registered_visits_share_a_grid_and_lesions_that_touch_none_keep_their_place():
    """Inside a confluent group a growing unit may win voxels from its neighbor; elsewhere not."""
    patient = simulate_patient(6, 2, spacing_mm=(1.0, 1.0, 1.0), registered=True)
    a, b = patient.study.visits
    assert a.scans["flair"].grid.matches(b.scans["flair"].grid)
    before, after = a.labels["instances"].array, b.labels["instances"].array
    rows = patient.lesions[0] + patient.lesions[1]
    confluent = {row["index"] for row in rows if row["confluent_group"]}
    both = (before > 0) & (after > 0) & ~np.isin(before, list(confluent))
    assert both.sum() > 100
    np.testing.assert_array_equal(before[both], after[both])


@pytest.mark.slow
def test_distributions_stay_near_the_fitted_ones():
    """Counts and sizes of ten patients within the range of the 28 real ones."""
    from lesionwise.simulate.statistics import lesion_statistics

    quantiles = lesion_statistics()["patient_quantiles"]
    counts, loads = [], []
    for seed in range(10):
        visit = simulate_patient(seed, spacing_mm=(1.0, 1.0, 1.0)).study.baseline
        labels = visit.labels["instances"].array
        counts.append(cc3d.connected_components(labels > 0, connectivity=26).max())
        loads.append((labels > 0).sum() / 1000)
    assert quantiles["n_ge_3mm3"][2] < np.median(counts) < quantiles["n_ge_3mm3"][-4]
    assert quantiles["total_load_ml"][2] < np.median(loads) < quantiles["total_load_ml"][-4]


@pytest.mark.slow
def test_a_stable_patient_has_the_same_lesions_on_another_scanner():
    patient = simulate_patient(8, 2, lesion_change=0, new_scanner=True)
    study = patient.study
    assert not any(volume.array.any() for volume in study.changes.values())
    assert {row["change"] for row in patient.lesions[1]} == {"stable"}
    a, b = (np.median(visit.scans["flair"].array[visit.brain.array]) for visit in study.visits)
    assert a != b


def test_a_load_of_0_leaves_a_healthy_head():
    patient = simulate_patient(5, visits=2, lesion_load=0, spacing_mm=(3.0, 3.0, 3.0))
    for visit in (0, 1):
        instances, lesions, tissue = _arrays(patient, visit)
        assert not instances.any()
        assert not lesions.any()
        assert not (tissue == 4).any()
        assert not patient.lesions[visit]
    assert not any(np.any(change.array) for change in patient.study.changes.values())
