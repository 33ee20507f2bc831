"""A whole output folder: whose it is, and tables that hold what every call left."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lesionwise.io.bids import write_dataset_description
from lesionwise.io.files import write_json
from lesionwise.io.names import Entities
from lesionwise.results.folder import (
    check_folder_settings,
    check_input,
    check_output,
    claim,
    read_folder,
    write_folder,
)
from lesionwise.results.names import ScanFiles, beside
from lesionwise.types import InputError


def table(path):
    return pd.read_csv(path, sep="\t")


def test_an_empty_a_missing_and_an_own_folder_are_taken(tmp_path):
    check_output(tmp_path)
    check_output(tmp_path / "new")
    claim(tmp_path / "ours", "lesionwise segment")
    (tmp_path / "ours" / "lesions.tsv").write_text("")
    check_output(tmp_path / "ours")
    (tmp_path / "notes.txt").write_text("mine")
    check_output(tmp_path)


def test_a_data_set_of_the_users_is_never_the_output(tmp_path):
    bids = tmp_path / "bids"
    (bids / "sub-01" / "anat").mkdir(parents=True)
    write_json(bids / "dataset_description.json", {"Name": "Precious", "DatasetType": "raw"})
    before = (bids / "dataset_description.json").read_bytes()
    for place in (bids, bids / "sub-01", bids / "sub-01" / "anat"):
        with pytest.raises(InputError, match="would be among the scans"):
            check_output(place, [bids])
    with pytest.raises(InputError, match="did not write"):
        check_output(bids, [tmp_path / "elsewhere.nii.gz"])
    (bids / "dataset_description.json").unlink()
    with pytest.raises(InputError, match="sub-01: exists already"):
        check_output(bids)
    check_output(bids / "derivatives" / "lesionwise", [bids])
    assert before


def test_a_simulated_data_set_and_its_truth_are_not_output_folders(tmp_path):
    write_dataset_description(tmp_path / "a", "Simulated patients", derivative=False)
    write_dataset_description(tmp_path / "b", "Truth of simulated patients")
    for name in "ab":
        with pytest.raises(InputError, match="did not write"):
            check_output(tmp_path / name)


@pytest.mark.parametrize("name", ["lesions.tsv", "scans.tsv", "index.html", "failures.tsv"])
def test_a_file_of_the_users_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: exists already"):
        check_output(tmp_path)


def test_a_folder_of_scans_is_not_the_output_by_any_of_its_names(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    with pytest.raises(InputError, match="would be among the scans"):
        check_output(tmp_path / "link", [tmp_path / "scans"])


def test_a_cohorts_folder_is_left_to_cohort(tmp_path):
    write_json(tmp_path / "cohort.json", {})
    with pytest.raises(InputError, match="holds the results of cohort"):
        check_output(tmp_path)


def test_results_of_another_input_are_not_overwritten(tmp_path, scan_result):
    result = scan_result(source="/data/P1_1.nii.gz")
    result.write(tmp_path)
    files = ScanFiles(tmp_path, result.scan)
    check_input(files, "/data/P1_1.nii.gz", "2" * 64)  # the same file, changed since
    check_input(files, "/copy/P1_1.nii.gz", "1" * 64)  # a copy
    with pytest.raises(InputError, match=r"P11\.nii\.gz: .*holds the results of /data/P1_1\.nii"):
        check_input(files, "/data/P11.nii.gz", "2" * 64)
    files.sidecar.write_text("{")
    check_input(files, "/data/P11.nii.gz", "2" * 64)  # damaged, so nothing is lost


def test_settings_of_a_folder_stay_and_what_is_a_scans_own_may_differ(tmp_path, scan_result):
    scan_result(settings={"threshold": 0.5}).write(tmp_path)
    check_folder_settings(tmp_path, {"threshold": 0.5, "scan": "other", "brain_mask": "x"})
    with pytest.raises(InputError, match=r"was begun with threshold 0\.5, now it is 0\.7; "):
        check_folder_settings(tmp_path, {"threshold": 0.7})
    check_folder_settings(tmp_path, {"threshold": 0.7}, ["sub-01_ses-M12_acq-2D"])


def test_later_calls_add_rows_and_two_scans_of_a_session_stay_apart(tmp_path, scan_result):
    for name in ("2D", "3D"):
        scan_result(Entities(sub="01", ses="1", acq=name), f"/scans/{name}.nii.gz").write(tmp_path)
        write_folder(tmp_path, "lesionwise segment", [Path(f"/scans/{name}.nii.gz")])
    scans = table(tmp_path / "scans.tsv")
    assert scans["scan"].tolist() == ["sub-01_ses-1_acq-2D", "sub-01_ses-1_acq-3D"]
    assert scans["source"].tolist() == ["/scans/2D.nii.gz", "/scans/3D.nii.gz"]
    lesions = table(tmp_path / "lesions.tsv")
    assert lesions.groupby("scan").size().tolist() == [2, 2]
    assert set(lesions["subject"] + lesions["session"]) == {"sub-01ses-1"}
    assert set(table(tmp_path / "lesions_seg-acls.tsv")["method"]) == {"acls"}
    assert set(lesions["method"]) == {"cc"}


def test_a_damaged_scan_is_listed_and_its_neighbors_keep_their_rows(tmp_path, scan_result):
    for name in "ab":
        scan_result(Entities(sub=name), f"/scans/{name}.nii.gz").write(tmp_path)
    path = beside(ScanFiles(tmp_path, Entities(sub="a")).instances("cc"), ".tsv")
    path.write_text(path.read_text().splitlines()[0] + "\n")
    tables = write_folder(tmp_path, "lesionwise segment")
    assert tables.scans["subject"].tolist() == ["sub-b"]
    failures = table(tmp_path / "failures.tsv")
    assert failures["file"].tolist() == ["sub-a"]
    assert "to be made again" in failures["error"][0]


def test_failures_stay_until_a_call_takes_their_inputs_again(tmp_path, scan_result):
    good, bad, worse = (Path(f"/scans/{name}.nii.gz") for name in ("good", "bad", "worse"))
    failures = {str(bad): "no brain", str(worse): "no image"}
    write_folder(tmp_path, "lesionwise segment", [good, bad, worse], failures)
    write_folder(tmp_path, "lesionwise segment", [good])
    assert table(tmp_path / "failures.tsv")["error"].tolist() == ["no brain", "no image"]
    write_folder(tmp_path, "lesionwise segment", [worse])
    assert table(tmp_path / "failures.tsv")["error"].tolist() == ["no brain"]
    write_folder(tmp_path, "lesionwise segment", [bad])
    assert not (tmp_path / "failures.tsv").exists()


SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from lesionwise.io.names import Entities
from lesionwise.results.folder import write_folder
import pickle
out, part = Path(sys.argv[2]), sys.argv[3]
result = pickle.loads(Path(sys.argv[4]).read_bytes())
from dataclasses import replace
for number in range(6):
    name = f"{part}{number}"
    source = f"/scans/{name}.nii.gz"
    record = replace(result.record, sources=(source,), input=source, stages=())
    one = replace(result, scan=Entities(sub=name), record=record, pictures=())
    one.write(out)
    write_folder(out, "lesionwise segment", [Path(source)], {f"{name}x": "no brain"})
"""


def test_two_processes_leave_tables_with_the_rows_of_both(tmp_path, scan_result):
    import pickle

    (tmp_path / "result").write_bytes(pickle.dumps(scan_result()))
    (tmp_path / "call.py").write_text(SCRIPT)
    running = [
        subprocess.Popen(
            [sys.executable, tmp_path / "call.py", Path(__file__).parents[2] / "src",
             tmp_path / "out", part, tmp_path / "result"]
        )
        for part in "ab"
    ]  # fmt: skip
    assert [one.wait(timeout=300) for one in running] == [0, 0]
    names = [f"sub-{part}{number}" for part in "ab" for number in range(6)]
    assert table(tmp_path / "out" / "scans.tsv")["subject"].tolist() == names
    assert len(table(tmp_path / "out" / "lesions.tsv")) == 24
    assert len(table(tmp_path / "out" / "failures.tsv")) == 12


def test_the_tables_of_a_folder_say_which_pages_show_its_scans(tmp_path, scan_result):
    scan_result(Entities(sub="a")).write(tmp_path)
    tables = read_folder(tmp_path)
    assert tables.scans["page"].tolist() == ["sub-a.html"]
    assert replace(tables).main == "cc"


@pytest.mark.parametrize("place", ["sub-01/anat", "sub-01", "sub-01/new"])
def test_results_of_a_named_scan_do_not_lie_in_its_subjects_folder(tmp_path, place):
    scan = tmp_path / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    with pytest.raises(InputError, match="would be among the scans"):
        check_output(tmp_path / place, [scan])
    assert check_output(tmp_path / "out", [scan])


def test_a_folder_may_be_called_like_a_subject_where_the_scan_is_not(tmp_path):
    scan = tmp_path / "sub-study" / "scans" / "a.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    assert check_output(tmp_path / "sub-study" / "out", [scan])
