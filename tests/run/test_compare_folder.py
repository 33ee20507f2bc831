"""What ``compare`` leaves in its folder; what finds and registers lesions takes no time."""

import json

import numpy as np
import pandas as pd
import pytest
from heads import bright_model, save
from test_segment_folder import find_bright, image

from lesionwise.io.scans import find_scans
from lesionwise.results.comparison import ComparisonRecord
from lesionwise.results.names import scan_name
from lesionwise.results.quality import QualityNote
from lesionwise.run import compare as module
from lesionwise.run import segment as segment_module
from lesionwise.run.compare import compare
from lesionwise.types import InputError


@pytest.fixture
def quick(monkeypatch):
    model = bright_model()
    for each in (module, segment_module):
        monkeypatch.setattr(each, "load_model", lambda *a, **k: model)
        monkeypatch.setattr(each, "find_lesions", find_bright)
        monkeypatch.setattr(each, "scan_note", lambda *a: QualityNote("flair", "good"))
    monkeypatch.setattr(module, "rigid", lambda *a, **k: np.eye(4))
    monkeypatch.setattr(module, "alignment_of", lambda *a, **k: None)
    for notes in ("alignment_notes", "change_notes"):
        monkeypatch.setattr(module, notes, lambda *a: ())
    monkeypatch.setattr(segment_module, "add_locations", lambda f, tables, known: (f, tables))
    monkeypatch.setattr(module, "write_comparison_page", lambda output: output / "index.html")


@pytest.fixture
def visits(tmp_path):
    names = (("1", "a"), ("2", "ab"))
    return [
        save(tmp_path / f"sub-1_ses-{ses}_acq-3D_FLAIR.nii.gz", image(lesions))
        for ses, lesions in names
    ]


def table(path):
    return pd.read_csv(path, sep="\t")


def test_tables_name_each_scan_and_states_in_the_same_words(tmp_path, quick, visits):
    out = tmp_path / "out"
    compare(visits, out)
    rows = table(out / "visits.tsv")
    assert rows["scan"].tolist() == ["sub-1_ses-1_acq-3D", "sub-1_ses-2_acq-3D"]
    assert rows["source"].tolist() == [str(path) for path in visits]
    assert rows["lesions"].tolist() == [1, 2]
    assert rows["new"].tolist() == [0, 1]
    lesions = table(out / "lesions.tsv")
    assert lesions.groupby("scan").size().tolist() == [1, 2]
    assert sorted(lesions.loc[lesions["session"] == "ses-2", "state"]) == ["new", "stable"]
    tracks = table(out / "tracks.tsv")
    assert set(tracks["scan"]) == set(rows["scan"])
    scans = table(out / "scans.tsv")
    assert scans["page"].tolist() == ["index.html", "index.html"]
    assert scans["volume_ml"].tolist() == rows["volume_ml"].tolist()
    for name in ("visits", "lesions", "tracks", "links", "scans"):
        described = json.loads((out / f"{name}.json").read_text())
        assert set(described) == set(table(out / f"{name}.tsv").columns)


def test_the_record_names_scans_and_what_was_written(tmp_path, quick, visits):
    out = tmp_path / "out"
    compare(visits, out)
    record = ComparisonRecord.read(out)
    assert record.sources == tuple(str(path) for path in visits)
    assert record.scans == ("sub-1_ses-1_acq-3D", "sub-1_ses-2_acq-3D")
    assert {"visits.tsv", "tracks.tsv", "links.tsv"} < set(record.files)
    assert all((out / name).exists() for name in record.files)


def test_a_folder_holds_one_comparison(tmp_path, quick, visits):
    out = tmp_path / "out"
    compare(visits, out)
    compare(visits, out)
    others = [save(tmp_path / "b" / path.name, image("b")) for path in visits]
    before = {path: path.read_bytes() for path in out.rglob("*.nii.gz")}
    with pytest.raises(InputError, match="holds the comparison of sub-1_ses-1"):
        compare(others, out)
    assert {path: path.read_bytes() for path in before} == before


def test_another_scan_of_a_session_may_be_segmented_into_the_folder(tmp_path, quick, visits):
    out = tmp_path / "out"
    compare(visits, out)
    third = save(tmp_path / "sub-1_ses-1_acq-2D_FLAIR.nii.gz", image("b"))
    segment_module.segment([third], out)
    scans = table(out / "scans.tsv").set_index("scan")
    assert scans["lesions"].to_dict() == {
        "sub-1_ses-1_acq-2D": 1, "sub-1_ses-1_acq-3D": 1, "sub-1_ses-2_acq-3D": 2,
    }  # fmt: skip
    lesions = table(out / "lesions.tsv").set_index("scan")
    assert pd.isna(lesions.loc["sub-1_ses-1_acq-2D", "state"])
    assert lesions.loc["sub-1_ses-1_acq-3D", "state"] == "baseline"
    assert scan_name(find_scans([third])[0].entities) in scans.index
