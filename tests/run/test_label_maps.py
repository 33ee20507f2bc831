"""Whether labels are lesions, classes or one mask."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lesionwise.io.nifti import read_labels
from lesionwise.run.evaluate import evaluate
from lesionwise.run.label_maps import labels_of, lesions_of
from lesionwise.types import InputError

PLACES = [(i, j, k) for i in (2, 12, 22) for j in (2, 12) for k in (2, 9)]
"""Corners of twelve cubes that do not touch."""


def save(path, values, places=PLACES):
    labels = np.zeros((30, 20, 14), dtype=np.uint8)
    for (i, j, k), value in zip(places, values, strict=True):
        labels[i : i + 3, j : j + 3, k : k + 3] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    return path


def read(path: Path, **how: object):
    return lesions_of(read_labels(path), path, 26, **how)


@pytest.mark.parametrize("name", ["packed.nii", "plain.nii.gz", "UP.NII.GZ", "Mixed.Nii.gz"])
def test_a_map_is_read_whatever_its_extension_says_of_it(tmp_path, name):
    good = save(tmp_path / "a.nii.gz", [1] * 12)
    content = good.read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.decompress(content) if name == "plain.nii.gz" else content)
    assert read(path).lesions.labels.max() == 12
    assert evaluate(good, path, workers=1).cases[0].value("dsc") == 1


def test_labels_stored_as_floating_point_are_noted(tmp_path):
    labels = np.zeros((30, 20, 14), dtype=np.float32)
    labels[2:5, 2:5, 2:5] = 1
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    (note,) = read(path).notes
    assert "stored as floating point" in note


def test_a_map_without_orientation_is_noted(tmp_path):
    labels = np.zeros((30, 20, 14), dtype=np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    image = nib.Nifti1Image(labels, None)
    image.header.set_zooms((1, 1, 1))
    image.to_filename(tmp_path / "a.nii")
    (note,) = read(tmp_path / "a.nii").notes
    assert note.startswith("a.nii: its header states no orientation")


def test_regions_are_classes_and_a_note_says_so(tmp_path):
    path = save(tmp_path / "annotated.nii.gz", [1 + n % 4 for n in range(12)])
    found = read(path)
    assert (found.kind, found.lesions.labels.max()) == ("classes", 12)
    (note,) = found.notes
    assert "labels 1, 2, 3 and 4 in 12 separate parts, read as classes of one mask" in note
    assert "--kind instances" in note


def test_a_reference_of_two_classes_is_not_two_lesions(tmp_path):
    path = save(tmp_path / "two.nii.gz", [1] * 11 + [2])
    assert (read(path).kind, read(path).lesions.labels.max()) == ("classes", 12)
    assert read(path, label=1).lesions.labels.max() == 11
    assert read(path, label=2).kind == "label 2"


def test_one_label_a_lesion_is_an_instance_map_without_a_note(tmp_path):
    found = read(save(tmp_path / "x.nii.gz", range(1, 13)))
    assert (found.kind, found.lesions.labels.max(), found.notes) == ("instances", 12, ())
    assert found.by_content


def test_a_few_lesions_in_parts_stay_instances_and_are_counted_in_a_note(tmp_path):
    found = read(save(tmp_path / "x.nii.gz", [1, 1, *range(2, 12)]))
    assert (found.kind, found.lesions.labels.max()) == ("instances", 11)
    assert "1 of 11 labels in several parts, read as instances" in found.notes[0]


@pytest.mark.parametrize(("kind", "count"), [("mask", 12), ("instances", 4)])
def test_the_kind_that_is_asked_for_decides(tmp_path, kind, count):
    path = save(tmp_path / "x.nii.gz", [1 + n % 4 for n in range(12)])
    found = read(path, kind=kind)
    assert (found.kind, found.lesions.labels.max(), found.notes) == (kind, count, ())


def test_a_mask_by_name_with_several_labels_says_so(tmp_path):
    found = read(save(tmp_path / "x_mask.nii.gz", range(1, 13)))
    assert found.kind == "mask"
    assert "12 labels from 1 to 12 read as one mask, as its name says" in found.notes[0]


def test_one_label_in_many_parts_is_a_mask_even_in_a_dseg(tmp_path):
    found = read(save(tmp_path / "x_dseg.nii.gz", [1] * 12))
    assert (found.kind, found.lesions.labels.max()) == ("mask", 12)
    assert "label 1 in 12 separate parts, read as a mask" in found.notes[0]


def test_instance_maps_of_lesionwise_need_no_option(tmp_path):
    path = save(tmp_path / "sub-1_seg-cc_dseg.nii.gz", [1] * 6 + [2] * 6)
    assert read(path).kind == "classes"
    sidecar = tmp_path / "sub-1_seg-cc_dseg.json"
    sidecar.write_text(json.dumps({"GeneratedBy": {"Name": "lesionwise"}}))
    assert (read(path).kind, read(path).notes) == ("instances", ())


def test_a_label_that_a_file_lacks_is_said(tmp_path):
    found = read(save(tmp_path / "x.nii.gz", [1] * 12), label=3)
    assert not found.lesions.labels.any()
    assert found.notes == ("x.nii.gz: does not hold label 3, so it has no lesion",)


def test_the_same_voxels_coloured_by_region_score_as_the_mask_does(tmp_path):
    reference = save(tmp_path / "expert.nii.gz", [1] * 12)
    regions = save(tmp_path / "regions.nii.gz", [1 + n % 4 for n in range(12)])
    done = evaluate(reference, regions)
    assert done.cases[0].value("lesion_f1") == done.cases[0].value("pq") == 1.0
    assert any("read as classes" in note for note in done.notes)


def test_a_label_may_be_named_for_one_side(tmp_path):
    reference = save(tmp_path / "two.nii.gz", [1] * 11 + [2])
    prediction = save(tmp_path / "expert.nii.gz", [3] * 11 + [0])
    done = evaluate(reference, prediction, label={"reference": 1})
    assert done.cases[0].value("lesion_f1") == 1.0
    assert done.cases[0].reference_kind == "label 1"
    assert done.cases[0].prediction_kind == "mask"


def test_all_files_of_a_method_are_read_in_one_way(tmp_path):
    """Two touching regions: two lesions if read alone, one if the other file says 'classes'."""
    touching = [(2, 2, 2), (5, 2, 2)]
    for side in ("ref", "pred"):
        save(tmp_path / side / "a.nii.gz", [1, 2] * 6 if side == "pred" else [1] * 12)
        save(tmp_path / side / "b.nii.gz", [1, 2] if side == "pred" else [1, 1], touching)
    done = evaluate(tmp_path / "ref", tmp_path / "pred", tmp_path / "out", workers=1)
    assert [case.prediction_kind for case in done.cases] == ["classes", "mask"]
    assert done.cases[1].prediction_count == 1


@pytest.mark.parametrize(
    ("stated", "labels"),
    [
        ([], {"reference": None, "prediction": None}),
        (["2"], {"reference": 2, "prediction": 2}),
        (["reference=1"], {"reference": 1, "prediction": None}),
        (["2", "prediction=5"], {"reference": 2, "prediction": 5}),
    ],
)
def test_labels_as_the_command_line_takes_them(stated, labels):
    assert labels_of(stated) == labels


@pytest.mark.parametrize("text", ["x", "0", "-1", "truth=1", "reference=", "1.5"])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="label: "):
        labels_of([text])


def test_a_label_and_instances_contradict_each_other(tmp_path):
    path = save(tmp_path / "x.nii.gz", [1] * 12)
    with pytest.raises(InputError, match="kind instances"):
        evaluate(path, path, kind="instances", label=1)
