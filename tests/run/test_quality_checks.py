"""How fit the scans are, and whether visits belong together."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from heads import head, pair_model, save

from lesionwise.io.bids import find_scans
from lesionwise.report.page import QualityNote
from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.predict_pairs import predict_pairs
from lesionwise.run.quality_checks import check_order, lines, named_as_typed, shared_fraction
from lesionwise.run.segment import segment
from lesionwise.types import Grid, InputError, Volume

BARE = FindOptions(extract_brain=False)
"""The head has no skull."""


def note(grade, reasons=(), about="flair of sub-1"):
    return QualityNote(about, grade, reasons)


def test_a_fault_of_a_step_names_the_file_as_typed(tmp_path):
    scan = find_scans([save(tmp_path / "noise.nii.gz", head())])[0]
    with pytest.raises(InputError) as caught, named_as_typed(scan, "flair"):
        raise InputError(f"{scan.subject} flair: no brain found (0.00 l look like one)")
    assert str(caught.value) == f"{scan.path}: no brain found (0.00 l look like one)"
    with pytest.raises(InputError, match=r"^another: fault"), named_as_typed(scan, "flair"):
        raise InputError("another: fault")


def test_many_good_scans_are_counted_and_the_others_listed():
    few = lines([note("good"), note("fair", ("noisy", "thick"))])
    assert few == ["flair of sub-1: good", "flair of sub-1: fair (noisy; thick)"]
    many = lines([note("good")] * 30 + [note("poor", ("cut",))])
    assert many == ["flair of sub-1: poor (cut)", "30 of 31 are good"]


def test_shared_share_by_hand():
    grid = Grid((20, 20, 20), np.diag([4.0, 4, 4, 1]))
    box = np.zeros(grid.shape, bool)
    box[5:15, 5:15, 5:15] = True
    brain = Volume(box, grid)
    assert shared_fraction(brain, brain, np.eye(4)) == 1
    shift = np.eye(4)
    shift[0, 3] = 20  # five of ten voxels along i
    assert shared_fraction(brain, brain, shift) == 0.5
    assert shared_fraction(brain, Volume(np.zeros_like(box), grid), np.eye(4)) == 0


def test_the_grade_stands_in_table_sidecar_and_page(tmp_path, model):
    scan = save(tmp_path / "sub-1_T1w.nii.gz", head())
    done = segment([scan], tmp_path / "out", options=BARE)
    assert done.quality[0].grade == "poor"
    assert done.quality[0].reasons[0] == "its name says T1w, not FLAIR"
    row = pd.read_csv(tmp_path / "out" / "scans.tsv", sep="\t").iloc[0]
    assert row["quality"] == "poor"
    assert "its name says T1w" in row["quality_reasons"]
    sidecar = json.loads(next((tmp_path / "out").rglob("*label-L_mask.json")).read_text())
    assert QualityNote.read(sidecar["Quality"][0]).reasons == done.quality[0].reasons
    assert "its name says T1w" in done.page.read_text()
    again = segment([scan], tmp_path / "out", options=BARE)  # not done again, and still graded
    assert again.quality[0].reasons == done.quality[0].reasons


def test_a_short_echo_time_is_no_flair_and_a_broken_sidecar_is_named(tmp_path, model):
    scan = save(tmp_path / "sub-1_FLAIR.nii.gz", head())
    sidecar = tmp_path / "sub-1_FLAIR.json"
    sidecar.write_text('{"EchoTime": 0.003}')
    reasons = segment([scan], tmp_path / "a", options=BARE).quality[0].reasons
    assert "its sidecar states an echo time of 3 ms, too short for a FLAIR" in reasons
    sidecar.write_text("{")
    reasons = segment([scan], tmp_path / "b", options=BARE).quality[0].reasons
    assert "sub-1_FLAIR.json: not valid JSON" in reasons[0]


@pytest.fixture
def visits(tmp_path):
    """Two visits whose sidecars and voxels a test may change."""

    def make(one=None, two=None, first="ab", second="bc"):
        paths = []
        for session, about, names in (("1", one, first), ("2", two, second)):
            path = save(tmp_path / f"sub-1_ses-{session}_FLAIR.nii.gz", head(names))
            if about is not None:
                path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about))
            paths.append(path)
        return paths

    return make


def test_dates_scanners_and_times_are_compared(tmp_path, model, visits):
    one = {"AcquisitionDateTime": "2020-05-06T10:00:00", "Manufacturer": "A", "EchoTime": 0.1}
    two = {"AcquisitionDateTime": "2021-05-06T10:00:00", "Manufacturer": "B", "EchoTime": 0.12}
    done = compare(visits(one, two), tmp_path / "out", options=BARE)
    (changed,) = [n for n in done.quality if n.about == "1 to 2"]
    assert changed.grade == "fair"
    assert changed.reasons == (
        "the scanner changed between 1 and 2",
        "echo times differ (0.1 s and 0.12 s) between 1 and 2",
    )
    assert changed.measures["shared_fraction"] > 0.98


@pytest.mark.parametrize("names", [("2", "1"), ("M12", "M00"), ("20210506", "20200506")])
def test_visits_named_in_the_wrong_order_are_refused_and_nothing_is_written(tmp_path, model, names):
    paths = [save(tmp_path / f"sub-1_ses-{name}_FLAIR.nii.gz", head("ab")) for name in names]
    with pytest.raises(InputError, match=f"ses-{names[1]}_FLAIR.nii.gz: by its name before"):
        compare(paths, tmp_path / "out", options=BARE)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="give visits in time order, baseline first"):
        predict_pairs(paths, tmp_path / "out", model=pair_model())
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.parametrize("names", [("1", "2"), ("2", "10"), ("post1", "pre2"), ("b", "a")])
def test_other_names_say_nothing_about_the_order(tmp_path, names):
    check_order(find_scans([tmp_path / f"sub-1_ses-{name}_FLAIR.nii.gz" for name in names]))


def test_plain_names_that_count_down_are_refused(tmp_path):
    names = ("P14_T2_FLAIR.nii.gz", "P14_T1_FLAIR.nii.gz")
    with pytest.raises(InputError, match=r"P14_T1_FLAIR\.nii\.gz: by its name before"):
        check_order(find_scans([tmp_path / name for name in names]))
    check_order(find_scans([tmp_path / name for name in reversed(names)]))


def test_a_header_without_orientation_is_a_reason(tmp_path, model):
    path = save(tmp_path / "a.nii.gz", head("ab"))
    image = nib.load(path)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.Nifti1Image(np.asarray(image.dataobj), None, image.header).to_filename(
        tmp_path / "b.nii.gz"
    )
    (note,) = segment([tmp_path / "b.nii.gz"], tmp_path / "out", options=BARE).quality
    assert note.reasons[0].startswith("its header states no orientation")
    assert note.grade != "good"


def test_dates_go_before_names(tmp_path, visits):
    later, earlier = visits(
        {"AcquisitionDateTime": "2021-05-06T10:00:00"},
        {"AcquisitionDateTime": "2020-05-06T10:00:00"},
    )
    check_order(find_scans([earlier, later]))
    with pytest.raises(InputError, match=r"ses-2_FLAIR\.nii\.gz: acquired before .*ses-1_FLAIR"):
        check_order(find_scans([later, earlier]))


def test_like_visits_get_no_note(tmp_path, model, visits):
    done = compare(visits({"EchoTime": 0.1}, {"EchoTime": 0.101}), tmp_path / "out", options=BARE)
    assert [n.about for n in done.quality] == ["flair of sub-1 ses-1", "flair of sub-1 ses-2"]
    assert list(done.summary["quality"]) == [n.grade for n in done.quality]


def test_one_scan_given_twice_is_told(tmp_path, model, visits):
    done = compare(visits(first="ab", second="ab"), tmp_path / "out", options=BARE)
    assert "1 and 2 hold the same scan" in done.quality[-1].reasons


def test_sidecars_of_two_patients_are_refused(tmp_path, model, visits):
    paths = visits({"PatientID": "SECRET1"}, {"PatientID": "SECRET2"})
    with pytest.raises(InputError, match="another patient") as why:
        compare(paths, tmp_path / "out", options=BARE)
    assert "SECRET" not in str(why.value)


def test_two_scans_of_one_session_are_refused(tmp_path, model):
    names = ("sub-1_ses-1_run-1_FLAIR", "sub-1_ses-1_run-2_FLAIR")
    paths = [save(tmp_path / f"{name}.nii.gz", head()) for name in names]
    with pytest.raises(InputError, match=r"run-2.*: of the same session as .*run-1"):
        compare(paths, tmp_path / "out", options=BARE)
    assert not (tmp_path / "out").exists()


def test_subjects_without_sessions_are_told_apart(tmp_path, model):
    paths = [save(tmp_path / f"sub-{n}_FLAIR.nii.gz", head()) for n in "12"]
    with pytest.raises(InputError, match="different subjects"):
        compare(paths, tmp_path / "out", options=BARE)
    folders = [tmp_path / "a", tmp_path / "b"]
    paths = [
        save(folder / "sub-1_FLAIR.nii.gz", head(n))
        for folder, n in zip(folders, "ab", strict=True)
    ]
    summary = compare(paths, tmp_path / "out", options=BARE).summary
    assert list(summary["session"]) == ["ses-01", "ses-02"]


def test_visits_that_do_not_overlap_are_refused(tmp_path, model, visits, monkeypatch):
    far = np.eye(4)
    far[0, 3] = 120
    monkeypatch.setattr("lesionwise.run.compare.rigid", lambda *a, **k: far)
    with pytest.raises(InputError, match=r"ses-2_FLAIR.nii.gz: only \d+ % of the brain overlaps"):
        compare(visits(), tmp_path / "out", options=BARE)
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_part_that_one_visit_lacks_is_told(tmp_path, model, visits):
    before, after = visits()
    image = nib.load(after)
    cut = np.asarray(image.dataobj)[:, :, 26:]
    affine = image.affine.copy()
    affine[:3, 3] += image.affine[:3, 2] * 26
    nib.save(nib.Nifti1Image(cut, affine), after)
    done = compare([before, after], tmp_path / "out", options=BARE)
    by_name = {n.about: n for n in done.quality}
    assert by_name["flair of sub-1 ses-2"].grade == "poor"
    assert "the field of view cuts through the brain" in by_name["flair of sub-1 ses-2"].reasons


def test_notes_survive_a_round_trip():
    kept = note("fair", ("noisy",))
    kept = replace(kept, measures={"noise": float("inf")})
    assert QualityNote.read(json.loads(json.dumps(kept.written()))).reasons == ("noisy",)
