"""From scans to the tables and the page of a cohort, with a model that finds what is bright."""

import pandas as pd
import pytest
from heads import bright_model, head, save

from lesionwise.cohort import participant, work
from lesionwise.cohort.group import group, rebuild
from lesionwise.cohort.participant import run_subjects
from lesionwise.cohort.records import is_whole, read_record
from lesionwise.cohort.subjects import find_subjects
from lesionwise.cohort.work import segment_or_compare
from lesionwise.types import InputError


def scan(root, subject, session=""):
    visit = f"ses-{session}_" if session else ""
    folder = root / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
    return folder / f"sub-{subject}_{visit}FLAIR.nii.gz"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, client_in_this_process):
    """Subject 1 gains a lesion; 2 has one visit; one visit of 3 and the only one of 4 are bad."""
    patch = pytest.MonkeyPatch()
    loads = []

    def load(*arguments, **options):
        loads.append(arguments)
        return bright_model()

    def nowhere(*arguments):
        raise InputError("no template in this test")

    patch.setattr("lesionwise.run.load_model.load_model", load)
    patch.setattr("lesionwise.run.locations.find_landmarks", nowhere)
    for command in ("segment", "compare"):
        patch.setattr(f"lesionwise.run.{command}.load_model", lambda model, **k: model)
    patch.setattr(participant, "dask_client", client_in_this_process)
    work._loaded.cache_clear()
    root = tmp_path_factory.mktemp("cohort")
    bids = root / "bids"
    save(scan(bids, "1", "A"), head("ab"))
    save(scan(bids, "1", "B"), head("abc"))
    save(scan(bids, "2"), head("a"))
    save(scan(bids, "3", "A"), head("b"))
    for bad in (scan(bids, "3", "B"), scan(bids, "4")):
        bad.parent.mkdir(parents=True)
        bad.write_text("no scan")
    settings = {
        "model": "bright", "weights": "0" * 64, "instances": "cc", "brain_extraction": False,
        "longitudinal": True, "version": participant.lesionwise.__version__,
    }  # fmt: skip
    done = run_subjects(find_subjects(bids), bids, root / "out", settings, segment_or_compare)
    yield done, root / "out", group(root / "out"), loads
    work._loaded.cache_clear()
    patch.undo()


def test_the_model_is_loaded_once_for_all_subjects(cohort):
    done, _, _, loads = cohort
    assert sorted(done.done) == ["1", "2", "3"]
    assert len(loads) == 1


def test_results_lie_where_bids_wants_them_and_nothing_else_remains(cohort):
    _, out, _, _ = cohort
    mask = "sub-1/ses-B/anat/sub-1_ses-B_space-orig_label-L_mask.nii.gz"
    assert (out / mask).exists()
    assert (out / "sub-1" / "tracks.tsv").exists()
    assert (out / "dataset_description.json").exists()
    assert not list(out.rglob("sub-*/dataset_description.json"))
    assert [p.name for p in (out / ".cohort").iterdir()] == ["failed"]


def test_a_bad_visit_leaves_the_others_and_a_bad_subject_is_listed(cohort):
    done, out, gathered, _ = cohort
    failures = pd.read_csv(out / "failures.tsv", sep="\t", keep_default_na=False)
    assert failures[["subject", "file"]].values.tolist() == [  # noqa: PD011
        ["sub-3", "comparison"],
        ["sub-3", str(scan(out.parent / "bids", "3", "B"))],
        ["sub-4", "n/a"],
    ]
    assert failures["error"].str.contains("not a NIfTI file").all()
    assert len(done.failed) == len(gathered.failures) == 3


def test_tables_gather_every_scan_and_every_lesion(cohort):
    _, out, gathered, _ = cohort
    rows = gathered.scans.set_index(["subject", gathered.scans["session"].fillna("")])
    assert rows["lesions"].to_dict() == {
        ("sub-1", "ses-A"): 2, ("sub-1", "ses-B"): 3, ("sub-2", ""): 1, ("sub-3", "ses-A"): 1,
    }  # fmt: skip
    assert rows.loc[("sub-1", "ses-B"), "new"] == 1
    assert pd.isna(rows.loc[("sub-1", "ses-A"), "new"])
    people = gathered.participants.set_index("participant_id")
    assert people["sessions"].to_dict() == {"sub-1": 2, "sub-2": 1, "sub-3": 1}
    assert people.loc["sub-1", "lesions"] == 3
    assert people["failures"].to_dict() == {"sub-1": 0, "sub-2": 0, "sub-3": 2}
    lesions = pd.read_csv(out / "lesions.tsv", sep="\t")
    assert set(lesions["method"]) == {"cc"}
    counted = lesions.groupby("subject").size()
    assert counted.to_dict() == {"sub-1": 5, "sub-2": 1, "sub-3": 1}
    assert set(lesions.loc[lesions["state"] == "new", "session"]) == {"ses-B"}


def test_the_page_links_to_every_study_and_names_the_failures(cohort):
    _, out, gathered, _ = cohort
    text = gathered.page.read_text()
    for page in gathered.scans["page"]:
        assert (out / page).exists()
        assert f'href="{page}"' in text
    assert "not a NIfTI file" in text


def test_gathering_again_gives_the_same_bytes(cohort):
    _, out, _, _ = cohort
    names = ("lesions.tsv", "scans.tsv", "participants.tsv", "failures.tsv")
    before = {name: (out / name).read_bytes() for name in names}
    group(out)
    assert {name: (out / name).read_bytes() for name in names} == before


def test_pages_are_made_again_from_files_and_the_subjects_stay_done(cohort):
    _, out, gathered, _ = cohort
    pages = {out / page for page in gathered.scans["page"]} | {gathered.page}
    for page in pages:
        page.unlink()
    made = rebuild(out)
    assert not made.failures
    assert pages <= set(made.pages)
    assert all(page.stat().st_size > 10_000 for page in pages)
    for folder in out.glob("sub-*"):
        record = read_record(folder)
        assert record is not None
        assert is_whole(folder, record)


def test_nothing_to_gather_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no subject is finished; run the participant level first"):
        group(tmp_path)


def test_two_scans_of_a_session_stay_apart_and_the_fitting_ones_are_compared(
    tmp_path, client_in_this_process, monkeypatch
):
    def nowhere(*arguments):
        raise InputError("no template in this test")

    model = bright_model()
    monkeypatch.setattr("lesionwise.run.load_model.load_model", lambda *a, **k: model)
    monkeypatch.setattr("lesionwise.run.locations.find_landmarks", nowhere)
    for command in ("segment", "compare"):
        monkeypatch.setattr(f"lesionwise.run.{command}.load_model", lambda model, **k: model)
    monkeypatch.setattr(participant, "dask_client", client_in_this_process)
    work._loaded.cache_clear()
    bids = tmp_path / "bids"
    for session, acquisition, names in (("A", "2D", "a"), ("A", "3D", "ab"), ("B", "3D", "abc")):
        path = scan(bids, "1", session)
        name = path.name.replace("_FLAIR", f"_acq-{acquisition}_FLAIR")
        save(path.with_name(name), head(names))
    settings = {
        "model": "bright", "weights": "0" * 64, "instances": "cc", "brain_extraction": False,
        "longitudinal": True, "version": participant.lesionwise.__version__,
    }  # fmt: skip
    out = tmp_path / "out"
    done = run_subjects(find_subjects(bids), bids, out, settings, segment_or_compare)
    work._loaded.cache_clear()
    assert done.done == ("1",)
    assert done.failed == {}
    gathered = group(out)
    rows = gathered.scans.set_index("scan")
    assert rows["lesions"].to_dict() == {
        "sub-1_ses-A_acq-2D": 1, "sub-1_ses-A_acq-3D": 2, "sub-1_ses-B_acq-3D": 3,
    }  # fmt: skip
    assert rows.loc["sub-1_ses-B_acq-3D", "new"] == 1
    person = gathered.participants.iloc[0]
    assert (person["sessions"], person["scans"], person["lesions"]) == (2, 3, 3)
    lesions = pd.read_csv(out / "lesions.tsv", sep="\t")
    assert lesions.groupby("scan").size().to_dict() == rows["lesions"].to_dict()
    assert all((out / page).exists() for page in gathered.scans["page"])
