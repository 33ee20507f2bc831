import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from peers import as_conflunet_authors

from lesionwise.instances.filters import DropSmall
from lesionwise.metrics import surface
from lesionwise.metrics.case import EMPTY_POLICIES, KEYS, Options, evaluate_case
from lesionwise.metrics.challenge import ChallengeRules
from lesionwise.types import Grid, InputError, Instances

label_maps = arrays(np.int32, (4, 4, 4), elements=st.integers(0, 3))


def instances(labels: np.ndarray, spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Instances:
    labels = np.asarray(labels, dtype=np.int32)
    return Instances(labels, Grid(labels.shape, np.diag([*spacing_mm, 1.0])))


def row(*labels: int, spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Instances:
    return instances(np.array(labels).reshape(-1, 1, 1), spacing_mm)


# Reference: 1 found half, 2 and 3 touch and are found as one, 4 missed. Prediction 9 is false.
REFERENCE = row(1, 1, 1, 1, 0, 2, 2, 2, 3, 0, 4, 0, 0, 0, 0, 0)
PREDICTION = row(1, 1, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0, 9, 9, 0)


def test_every_key_has_a_value_or_a_reason():
    for prediction in (PREDICTION, row(*[0] * 16)):
        result = evaluate_case(REFERENCE, prediction)
        assert tuple(result.values) == KEYS
        missing = {key for key, value in result.values.items() if value is None}
        assert missing == set(result.undefined)
        assert all(result.undefined.values())
        assert all(math.isfinite(v) for v in result.values.values() if v is not None)


PROMISED = """
dsc dsc_smoothed ndsc iou ppv sensitivity specificity accuracy hd95_mm assd_mm surface_dice
volume_difference_mm3 relative_volume_difference lesion_tp lesion_fp lesion_fn lesion_precision
lesion_recall lesion_f1 lesion_f1_any_overlap lesion_fpr dic dsc_tp pq sq rq clu_count clu_recall
clu_precision clu_f1 dsc_tp_clu pq_clu challenge_sensl challenge_ppvl challenge_f1
false_lesion_count false_lesion_volume_mm3
"""


def test_the_keys_are_those_that_files_promise():
    assert list(KEYS) == PROMISED.split()


def test_a_case_by_hand():
    values = evaluate_case(REFERENCE, PREDICTION).values
    assert values["dsc"] == 2 * 6 / (9 + 8)
    assert values["accuracy"] == 11 / 16  # over the whole volume, not the box around lesions
    assert (values["lesion_tp"], values["lesion_fp"], values["lesion_fn"]) == (2, 1, 2)
    assert values["sq"] == (2 / 4 + 3 / 4) / 2
    assert values["pq"] == pytest.approx((2 / 4 + 3 / 4) / (2 + 1 / 2 + 2 / 2))
    assert values["lesion_f1_any_overlap"] == pytest.approx(2 * (3 / 4) * (2 / 3) / (17 / 12))
    assert values["clu_count"] == 2
    assert values["clu_recall"] == 1 / 2
    assert values["dsc_tp_clu"] == 6 / 7
    assert values["volume_difference_mm3"] == -1.0
    assert values["assd_mm"] == (1 + 2 + 2 + 3 + 4) / (9 + 8)


def test_hd95_of_that_case_is_the_larger_direction():
    masks = (REFERENCE.labels > 0, PREDICTION.labels > 0)
    found = surface.distances_between_edges(*masks, (1.0, 1.0, 1.0))
    assert found.prediction_to_reference.tolist() == [0, 0, 0, 0, 0, 0, 3, 4]
    larger = max(
        np.percentile([0, 0, 1, 2, 0, 0, 0, 0, 2], 95), np.percentile([0] * 6 + [3, 4], 95)
    )
    assert evaluate_case(REFERENCE, PREDICTION).values["hd95_mm"] == pytest.approx(larger)


def test_lesion_rows_and_relations_name_the_lesions():
    result = evaluate_case(REFERENCE, PREDICTION)
    rows = {(lesion.side, lesion.id): lesion for lesion in result.lesions}
    found = rows["reference", 1]
    assert (found.state, found.matched_id, found.iou, found.dice) == ("TP", 1, 0.5, 2 * 2 / 6)
    assert (found.confluent_unit, found.relation) == (False, "one_to_one")
    assert rows["reference", 2].confluent_unit
    assert rows["reference", 2].relation == rows["reference", 3].relation == "merged"
    assert (rows["reference", 3].state, rows["reference", 3].matched_id) == ("FN", None)
    assert rows["reference", 4].relation == "missed"
    assert (rows["prediction", 9].state, rows["prediction", 9].relation) == ("FP", "false")
    assert rows["prediction", 2].volume_mm3 == 4.0
    assert rows["prediction", 2].confluent_unit is None
    assert len(rows) == len(result.lesions) == 7
    merged = [found for found in result.relations if found.kind == "merged"]
    assert [(found.references, found.predictions) for found in merged] == [((2, 3), (2,))]


def test_spacing_counts_in_volumes_and_distances():
    spacing_mm = (2.0, 1.0, 3.0)
    values = evaluate_case(
        row(1, 1, 0, 0, 0, spacing_mm=spacing_mm), row(0, 0, 1, 1, 0, spacing_mm=spacing_mm)
    ).values
    assert values["assd_mm"] == (4 + 2 + 2 + 4) / 4
    assert values["volume_difference_mm3"] == 0.0
    alone = evaluate_case(row(0, 0, spacing_mm=spacing_mm), row(1, 0, spacing_mm=spacing_mm))
    assert alone.values["false_lesion_volume_mm3"] == 6.0


def test_distances_on_a_sheared_grid_are_those_between_world_coordinates():
    affine = np.array([[1, 0, 0.6, 5], [0, 1, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    one, other = np.zeros((2, 20, 3, 5), dtype=np.int32)
    one[10, 1, 1], other[16, 1, 3] = 1, 1
    grid = Grid(one.shape, affine)
    apart = np.linalg.norm(grid.world_mm(np.array([[10, 1, 1]])) - grid.world_mm([[16, 1, 3]]))
    values = evaluate_case(Instances(one, grid), Instances(other, grid)).values
    assert values["hd95_mm"] == values["assd_mm"] == pytest.approx(apart)
    assert apart == pytest.approx(math.hypot(7.2, 6))
    assert evaluate_case(Instances(one, grid), Instances(one, grid)).values["hd95_mm"] == 0.0


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_a_turned_grid_measures_as_a_straight_one(angle):
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    rng = np.random.default_rng(0)
    sides = [(rng.random((9, 8, 7)) > 0.9).astype(np.int32) for _ in range(2)]
    straight, turned = (
        [Instances(side, Grid(side.shape, affine)) for side in sides]
        for affine in (np.diag([0.9, 1.1, 3.0, 1.0]), turn @ np.diag([0.9, 1.1, 3.0, 1.0]))
    )
    one, other = (evaluate_case(*pair).values["hd95_mm"] for pair in (straight, turned))
    assert one == pytest.approx(other, rel=1e-12)


EMPTY, SOMETHING = row(0, 0, 0), row(0, 1, 1)


def test_agreement_on_nothing_is_perfect_by_default():
    result = evaluate_case(EMPTY, EMPTY)
    perfect = ("dsc", "dsc_smoothed", "iou", "ndsc", "lesion_f1", "lesion_f1_any_overlap", "pq")
    assert [result.values[key] for key in perfect] == [1.0] * len(perfect)
    assert result.values["lesion_fpr"] == result.values["relative_volume_difference"] == 0.0
    assert result.values["false_lesion_count"] == 0
    assert {"hd95_mm", "assd_mm", "dsc_tp", "clu_recall", "challenge_f1"} <= set(result.undefined)


def test_the_policies_on_nothing():
    def values(options: Options) -> dict:
        return dict(evaluate_case(EMPTY, EMPTY, options).values)

    undefined = values(Options(empty="undefined"))
    assert [undefined[key] for key in ("dsc", "iou", "lesion_f1", "pq", "ppv")] == [None] * 5
    assert undefined["dsc_smoothed"] == 1.0


def test_the_authors_numbers_on_nothing():
    result = evaluate_case(EMPTY, EMPTY, Options(empty="undefined"))
    authors = as_conflunet_authors(result, EMPTY, EMPTY)
    assert (authors["dsc"], authors["pq"], authors["lesion_f1"]) == (1.0, 1.0, 0.0)
    assert (authors["lesion_recall"], authors["lesion_precision"]) == (1.0, 1.0)
    assert (authors["dsc_tp"], authors["pq_clu"], authors["dsc_tp_clu"]) == (0.0, 1.0, None)


def test_the_policies_on_one_empty_side():
    for sides in ((EMPTY, SOMETHING), (SOMETHING, EMPTY)):
        for empty in EMPTY_POLICIES:
            values = evaluate_case(*sides, Options(empty=empty)).values
            for key in ("dsc", "iou", "lesion_f1", "lesion_f1_any_overlap", "pq", "rq"):
                assert values[key] == 0.0, (empty, key)
            assert values["hd95_mm"] is None
            assert values["sq"] is None
    no_prediction = evaluate_case(SOMETHING, EMPTY)
    assert no_prediction.undefined["ppv"] == "the prediction has no lesion voxel"
    assert no_prediction.undefined["lesion_precision"] == "the prediction has no lesion"
    assert no_prediction.values["challenge_f1"] == 0.0


def test_false_lesions_are_counted_where_the_reference_is_empty():
    result = evaluate_case(EMPTY, SOMETHING)
    assert result.values["false_lesion_count"] == 1
    assert result.values["false_lesion_volume_mm3"] == 2.0
    assert result.values["lesion_recall"] is None
    assert evaluate_case(SOMETHING, SOMETHING).values["false_lesion_count"] is None


def test_the_size_filter_acts_on_both_sides_and_on_lesions_only():
    # Two voxels on each side, one of them small; the small ones lie apart.
    reference = row(1, 1, 1, 0, 2, 0, 0)
    prediction = row(1, 1, 1, 0, 0, 0, 2)
    everything = evaluate_case(reference, prediction)
    assert (everything.values["lesion_fp"], everything.values["lesion_fn"]) == (1, 1)
    for options in (Options(min_volume_mm3=2.0), Options(min_extent_mm=1.0, min_volume_mm3=1.5)):
        large = evaluate_case(reference, prediction, options)
        assert (large.values["lesion_fp"], large.values["lesion_fn"]) == (0, 0)
        assert large.values["lesion_f1"] == 1.0
        assert large.values["dsc"] == everything.values["dsc"]
        assert large.values["hd95_mm"] == everything.values["hd95_mm"]
        assert large.options["size_filter"] == "both sides"
    assert everything.options["size_filter"] == "neither side"
    exact = Options(min_volume_mm3=1.0)
    assert evaluate_case(reference, prediction, exact).values["lesion_fn"] == 1


def test_options_are_written_with_their_definitions():
    options = Options(matching="optimal", challenge=ChallengeRules(alpha=0.2))
    written = json.loads(json.dumps(evaluate_case(REFERENCE, PREDICTION, options).options))
    assert written["matching"] == "optimal"
    assert written["challenge"]["alpha"] == 0.2
    assert written["challenge_connectivity"] == 6
    assert "MONAI" in written["hd95_definition"]
    assert "MedPy" in written["assd_definition"]
    assert set(written) >= {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"matching": "best"},
        {"comparison": ">>"},
        {"hd95": "mean"},
        {"assd": "mean"},
        {"empty": "zero"},
        {"iou_threshold": 1.5},
        {"clu_connectivity": 8},
        {"iou_threshold": float("nan")},
        {"min_volume_mm3": -1.0},
        {"min_volume_mm3": float("nan")},
        {"min_extent_mm": float("inf")},
    ],
)
def test_unknown_options_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Options(**wrong)


def test_sides_on_different_grids_are_refused():
    with pytest.raises(InputError, match="grid"):
        evaluate_case(row(1, 0), row(1, 0, 0))
    with pytest.raises(InputError, match="grid"):
        evaluate_case(row(1, 0), row(1, 0, spacing_mm=(2.0, 1.0, 1.0)))


def test_negative_labels_are_refused():
    with pytest.raises(InputError, match="prediction: has negative labels"):
        evaluate_case(row(1, 0), row(-1, 0))


@pytest.mark.parametrize(("tolerance_mm", "share"), [(1.9, 0.0), (2.0, 0.5), (4.0, 1.0)])
def test_surfaces_agree_within_the_tolerance(tolerance_mm, share):
    """Edge voxels 2 mm apart: distances of 4 and 2 mm on both sides."""
    sides = [row(*cells, spacing_mm=(2.0, 1.0, 3.0)) for cells in ((1, 1, 0, 0), (0, 0, 1, 1))]
    options = Options(surface_tolerance_mm=tolerance_mm)
    assert evaluate_case(*sides, options).values["surface_dice"] == share


def test_surfaces_of_nothing_agree_unless_that_is_undefined():
    def dice(one, other, **options):
        return evaluate_case(one, other, Options(**options)).values["surface_dice"]

    assert dice(EMPTY, EMPTY) == 1.0
    assert dice(EMPTY, EMPTY, empty="undefined") is None
    assert dice(EMPTY, SOMETHING) == dice(SOMETHING, EMPTY) == 0.0


def test_area_weighted_distances_are_an_option():
    options = Options(hd95="area_weighted", assd="area_weighted")
    masks = (REFERENCE.labels > 0, PREDICTION.labels > 0)
    found = surface.distances_between_elements(*masks, (1.0, 1.0, 1.0))
    values = evaluate_case(REFERENCE, PREDICTION, options).values
    assert values["hd95_mm"] == surface.hausdorff_mm(found, 95, "area_weighted")
    assert values["assd_mm"] == surface.average_surface_distance_mm(found, "area_weighted")
    assert values["surface_dice"] == surface.surface_dice(found, 1.0)
    mixed = evaluate_case(REFERENCE, PREDICTION, Options(hd95="area_weighted")).values
    assert mixed["hd95_mm"] == values["hd95_mm"]
    assert mixed["assd_mm"] == evaluate_case(REFERENCE, PREDICTION).values["assd_mm"]


def test_the_arrays_are_left_alone_in_any_memory_order():
    reference = instances(np.asfortranarray(np.random.default_rng(0).integers(0, 4, (5, 6, 7))))
    before = reference.labels.copy()
    fortran = Instances(np.asfortranarray(reference.labels), reference.grid)
    one = evaluate_case(reference, fortran, Options(min_volume_mm3=2.0))
    assert (reference.labels == before).all()
    assert one.values["lesion_f1"] == 1.0


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps)
def test_background_around_the_lesions_changes_only_what_counts_it(reference, prediction):
    wide = [instances(np.pad(a, ((2, 1), (0, 3), (1, 1)))) for a in (reference, prediction)]
    small = evaluate_case(instances(reference), instances(prediction)).values
    large = evaluate_case(*wide).values
    for key in set(KEYS) - {"ndsc", "specificity", "accuracy"}:
        assert small[key] == large[key], key


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps, st.permutations([1, 2, 3]))
def test_names_of_lesions_do_not_matter(reference, prediction, names):
    renamed = np.array([0, *(10 * n for n in names)], dtype=np.int32)[prediction]
    options = Options(matching="optimal")
    one = evaluate_case(instances(reference), instances(prediction), options).values
    other = evaluate_case(instances(reference), instances(renamed), options).values
    for key in ("lesion_f1_any_overlap", "dsc", "challenge_f1", "hd95_mm", "clu_count", "dic"):
        assert one[key] == other[key]
    assert one["pq"] == pytest.approx(other["pq"])


@settings(max_examples=40, deadline=None)
@given(label_maps)
def test_identity_is_perfect(labels):
    values = evaluate_case(instances(labels), instances(labels)).values
    for key in ("dsc", "iou", "ndsc", "lesion_f1", "lesion_f1_any_overlap", "pq", "sq", "rq"):
        assert values[key] == 1.0
    assert values["lesion_fpr"] == values["dic"] == values["volume_difference_mm3"] == 0
    if labels.any():
        assert values["hd95_mm"] == values["assd_mm"] == 0.0


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps)
def test_swapping_sides_swaps_what_belongs_to_a_side(reference, prediction):
    options = Options(matching="optimal")
    one = evaluate_case(instances(reference), instances(prediction), options).values
    other = evaluate_case(instances(prediction), instances(reference), options).values
    for key in ("dsc", "iou", "hd95_mm", "assd_mm", "lesion_f1_any_overlap", "dic", "accuracy"):
        assert one[key] == pytest.approx(other[key])
    assert one["ppv"] == other["sensitivity"]
    assert one["volume_difference_mm3"] == -other["volume_difference_mm3"]
    assert one["lesion_precision"] == pytest.approx(other["lesion_recall"])


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps, st.sampled_from(list(EMPTY_POLICIES)))
def test_bounds(reference, prediction, empty):
    values = evaluate_case(instances(reference), instances(prediction), Options(empty=empty)).values
    whole = {"lesion_tp", "lesion_fp", "lesion_fn", "dic", "clu_count", "false_lesion_count"}
    for key, value in values.items():
        if key.endswith(("_difference", "_mm3")) or value is None:
            continue
        assert value >= 0
        if key in whole:
            assert isinstance(value, int)
        elif not key.endswith("_mm"):
            assert value <= 1


@settings(max_examples=40, deadline=None)
@given(label_maps, label_maps, st.integers(1, 3))
def test_a_missed_lesion_found_exactly_never_lowers_a_score(reference, prediction, label):
    clear = np.where((reference == label) | (prediction == 0), 0, prediction + 10)
    touched = np.isin(clear, np.unique(prediction[reference == label] + 10))
    clear[touched] = 0  # nothing predicted on the lesion, and no other prediction cut
    better = np.where(reference == label, 1, clear)
    one = evaluate_case(instances(reference), instances(clear)).values
    other = evaluate_case(instances(reference), instances(better)).values
    for key in ("dsc", "iou", "lesion_recall", "lesion_f1", "pq", "sensitivity"):
        if one[key] is not None and other[key] is not None:
            assert other[key] >= one[key] - 1e-12


NAMES = {
    "DSC": "dsc",
    "nDSC": "ndsc",
    "Dice_Per_TP": "dsc_tp",
    "PQ": "pq",
    "F1": "lesion_f1",
    "TP": "lesion_tp",
    "FP": "lesion_fp",
    "FN": "lesion_fn",
    "FPR": "lesion_fpr",
    "Recall": "lesion_recall",
    "Precision": "lesion_precision",
    "DiC": "dic",
}
CONFLUENT_NAMES = {
    "CLU_Count": "clu_count",
    "Recall_CLU": "clu_recall",
    "Dice_Per_TP_CLU": "dsc_tp_clu",
    "Precision_CLU": "clu_precision",
    "F1_CLU": "clu_f1",
    "PQ_CLU": "pq_clu",
}


def check_conflunet(reference, prediction, theirs, agree) -> None:
    for connectivity, suffix in ((6, ""), (26, "_conn_26")):
        options = Options(empty="undefined", clu_connectivity=connectivity)
        result = evaluate_case(reference, prediction, options)
        values = as_conflunet_authors(result, reference, prediction)
        for name, ours in CONFLUENT_NAMES.items():
            assert agree(values[ours], theirs[name + suffix], 1e-9), (name, suffix)
    for name, ours in NAMES.items():
        tolerance = 2e-6 if name == "nDSC" else 1e-9  # theirs is summed in float32
        assert agree(values[ours], theirs[name], tolerance), name


def test_metrics_of_the_conflunet_authors(peer_case, agree):
    theirs = peer_case.peer("conflunet")["metrics"]
    check_conflunet(peer_case.reference, peer_case.prediction, theirs, agree)


def test_metrics_of_the_conflunet_authors_after_their_size_filter(peer_case, agree):
    peer = peer_case.peer("conflunet").get("cli_small_reference_removed")
    if peer is None or "metrics" not in peer:
        return
    # Their command filters the reference alone, which Options cannot ask for: see
    # docs/guide/lesion-metrics.md.
    drop = DropSmall(14.0, 3.0, drop_at_min_volume=True, relabel=False)
    check_conflunet(drop(peer_case.reference), peer_case.prediction, peer["metrics"], agree)


def test_lesion_tables_of_the_conflunet_authors(peer_case):
    peer = peer_case.peer("conflunet")
    result = evaluate_case(peer_case.reference, peer_case.prediction)
    for side, table, partner in (
        ("reference", peer["ref_matches"], "Pred_Lesion_ID_Match"),
        ("prediction", peer["pred_matches"], "Ref_Lesion_ID_Match"),
    ):
        rows = [lesion for lesion in result.lesions if lesion.side == side]
        assert [lesion.id for lesion in rows] == table["Lesion_ID"]
        assert [lesion.matched_id for lesion in rows] == table[partner]
        volume = table["Volume_Ref" if side == "reference" else "Volume_Pred"]
        assert [lesion.volume_mm3 for lesion in rows] == pytest.approx(volume, rel=1e-5)
        for ours, theirs in (("iou", "IoU"), ("dice", "DSC")):
            for lesion, value in zip(rows, table[theirs], strict=True):
                if value is None:
                    assert getattr(lesion, ours) is None
                else:
                    assert getattr(lesion, ours) == pytest.approx(value, abs=1e-9)
        if side == "reference":
            assert [lesion.confluent_unit for lesion in rows] == table["is_confluent"]
