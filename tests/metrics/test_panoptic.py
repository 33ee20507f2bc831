import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panoptica import ALL_QUALITIES, instance_qualities, panoptic_report

from lesionwise.instances.components import connected_components
from lesionwise.instances.matching import match
from lesionwise.instances.table import overlap_table
from lesionwise.metrics import overlap, surface
from lesionwise.metrics.panoptic import panoptic_scores
from lesionwise.metrics.score import Undefined

MM = (1.0, 1.0, 1.0)
label_maps = arrays(np.int32, (3, 4, 4), elements=st.integers(0, 4))


def row(*labels: int) -> np.ndarray:
    return np.array(labels, dtype=np.int32).reshape(-1, 1, 1)


def scores(reference: np.ndarray, prediction: np.ndarray, **how: object) -> dict:
    table = overlap_table(reference, prediction)
    return panoptic_scores(table, match(table, **how))


def test_panoptic_quality_by_hand():
    # IoU 1 and 1/2, one missed, one false.
    found = scores(row(1, 1, 2, 2, 3, 0), row(1, 1, 2, 0, 0, 4))
    assert found == {"sq": 0.75, "rq": 2 / 3, "pq": 0.5}


def test_panoptic_quality_of_empty_sides():
    nothing, something = row(0, 0), row(1, 1)
    assert {type(v) for v in scores(nothing, nothing).values()} == {Undefined}
    for sides in ((nothing, something), (something, nothing)):
        found = scores(*sides)
        assert (found["pq"], found["rq"]) == (0.0, 0.0)
        assert found["sq"] == Undefined("no lesion is matched")


def test_qualities_of_one_pair_by_hand():
    reference = row(1, 1, 1, 1, 0, 0)
    prediction = row(0, 0, 7, 7, 7, 0)
    table = overlap_table(reference, prediction)
    found = instance_qualities(
        table, match(table), ALL_QUALITIES, reference, prediction, (2.0, 1.0, 1.0)
    )
    assert {name: values.tolist() for name, values in found.items()} == {
        "iou": [2 / 5],
        "dice": [4 / 7],
        "rvd": [-1 / 4],
        "rvae": [1 / 4],
        "cedi_mm": [3.0],
        "assd_mm": [((4 + 2) / 4 + 2 / 3) / 2],
        "hd_mm": [4.0],
        "hd95_mm": [pytest.approx(np.percentile([4, 2, 0, 0, 0, 0, 2], 95))],
        "nsd": [(2 / 4 + 2 / 3) / 2],
    }


@settings(deadline=None)
@given(label_maps, label_maps)
def test_quality_is_a_product_between_0_and_1(reference, prediction):
    found = scores(reference, prediction)
    if isinstance(found["sq"], float):
        assert math.isclose(found["pq"], found["sq"] * found["rq"])
        assert 0.1 < found["sq"] <= 1
        assert 0 < found["rq"] <= 1


@settings(deadline=None)
@given(label_maps)
def test_identity_is_perfect(labels):
    found = scores(labels, labels)
    if labels.any():
        assert found == {"pq": 1.0, "sq": 1.0, "rq": 1.0}


RUNS = {
    "instances_iou_0.5": {"rule": "greedy_pairs", "threshold": 0.5, "comparison": ">="},
    "instances_iou_0.1": {"rule": "greedy_pairs", "threshold": 0.1, "comparison": ">="},
    "instances_iou_0.1_strict": {"rule": "greedy_pairs", "threshold": 0.1, "comparison": ">"},
    "instances_iou_0.1_bipartite": {"rule": "optimal", "threshold": 0.1, "comparison": ">="},
    "binary_cc26_iou_0.5": {"rule": "greedy_pairs", "threshold": 0.5, "comparison": ">="},
    "binary_cc26_dsc_0.1_binaryMS": {
        "rule": "greedy_pairs",
        "threshold": 0.1,
        "comparison": ">=",
        "score": "dice",
    },
}
NAMES = {
    "iou": "",
    "dice": "_dsc",
    "rvd": "_rvd",
    "rvae": "_rvae",
    "cedi_mm": "_cedi",
    "assd_mm": "_assd",
    "hd_mm": "_hd",
    "hd95_mm": "_hd95",
    "nsd": "_nsd",
}
"""Our quality: panoptica's suffix."""


@pytest.mark.parametrize("run", RUNS)
def test_instances_of_panoptica(peer_case, agree, run):
    theirs = peer_case.peer("panoptica")["runs"][run]["results"]
    reference, prediction = peer_case.reference.labels, peer_case.prediction.labels
    if run.startswith("binary"):
        reference, prediction = (connected_components(m, 26) for m in peer_case.masks)
    table = overlap_table(reference, prediction)
    matching = match(table, **RUNS[run])
    qualities = instance_qualities(
        table, matching, ALL_QUALITIES, reference, prediction, peer_case.spacing_mm
    )
    report = panoptic_report(table, matching, qualities)
    assert report["n_reference"] == theirs["n_ref_instances"]
    assert report["n_prediction"] == theirs["n_pred_instances"]
    for ours, name in (("tp", "tp"), ("fp", "fp"), ("fn", "fn")):
        assert report[ours] == theirs[name]
    for ours, name in (("precision", "prec"), ("recall", "rec"), ("rq", "rq")):
        assert agree(report[ours], theirs[name], 1e-9)
    for ours, suffix in NAMES.items():
        if report["tp"] == 0:  # panoptica gives 0, an infinity or NaN; we say why there is none
            assert isinstance(report[f"sq_{ours}"], Undefined)
            continue
        tolerance = 1e-9 if ours in ("iou", "dice", "rvd", "rvae", "nsd") else 1e-5
        assert agree(report[f"sq_{ours}"], theirs[f"sq{suffix}"], tolerance)
        assert agree(report[f"sq_{ours}_sd"], theirs[f"sq{suffix}_std"], tolerance)
        if f"pq{suffix}" in theirs:
            assert agree(report[f"pq_{ours}"], theirs[f"pq{suffix}"], tolerance)
    matched = [one for one in theirs.get("reference_instances", ()) if one["is_matched"]]
    for ours, suffix in NAMES.items():
        if matched:
            expected = sorted(one[f"sq{suffix}"] for one in matched)
            assert sorted(qualities[ours]) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_whole_masks_of_panoptica(peer_case, agree):
    theirs = peer_case.peer("panoptica")["runs"]["instances_iou_0.1"]["results"]
    counts = overlap.count_voxels(*peer_case.masks)
    if counts.reference == 0 or counts.prediction == 0:
        return
    assert agree(overlap.dice(counts), theirs["global_bin_dsc"], 1e-9)
    assert agree(overlap.iou(counts), theirs["global_bin_iou"], 1e-9)
    relative = overlap.relative_volume_difference(counts)
    assert agree(relative, theirs["global_bin_rvd"], 1e-9)
    if counts.tp == 0:
        return  # its distances are infinite without a common voxel; ours are not
    found = surface.distances_between_edges(*peer_case.masks, MM)  # in voxels, as there
    average = surface.average_surface_distance_mm(found, "mean_of_directed")
    assert agree(average, theirs["global_bin_assd"], 1e-5)
    assert agree(surface.hausdorff_mm(found, 100, "pooled"), theirs["global_bin_hd"], 1e-5)
    assert agree(surface.hausdorff_mm(found, 95, "pooled"), theirs["global_bin_hd95"], 1e-5)
    within = surface.surface_dice(found, 0.5, "mean_of_directed")
    assert agree(within, theirs["global_bin_nsd"], 1e-9)
