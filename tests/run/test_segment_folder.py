"""Several calls of ``segment`` in one folder; what finds lesions is as quick as can be."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from heads import bright_model, save

from lesionwise.instances.components import ConnectedComponents
from lesionwise.results.quality import QualityNote
from lesionwise.run import segment as module
from lesionwise.run.find_lesions import FindOptions, VisitResult
from lesionwise.run.segment import segment
from lesionwise.types import InputError, LesionMaps, Volume

PLACES = {"a": (4, 4, 4), "b": (14, 12, 6)}


def image(names):
    """Gray with one bright cube of 4 voxels a name: (I, J, K) float32."""
    array = np.full((24, 20, 16), 100, np.float32)
    for name in names:
        i, j, k = PLACES[name]
        array[i : i + 4, j : j + 4, k : k + 4] = 300
    return array


def find_bright(study, model, options, on_progress, *, beside=False):
    volume = study.followup.scans["flair"]
    mask = volume.array > 200
    maps = LesionMaps(mask.astype(np.float32), volume.grid)
    lesions = ConnectedComponents()(maps, mask)
    return VisitResult(
        study.followup,
        Volume(np.ones(mask.shape, bool), volume.grid),
        Volume(maps.probability, volume.grid),
        Volume(mask, volume.grid),
        {"offsets": lesions, "acls": lesions, "cc": lesions},
        options.threshold or 0.5,
        {"network": 0.5},
        maps.grid,
    )


@pytest.fixture
def quick(monkeypatch):
    """``segment`` with a model that takes no time, without grades, places and pictures."""
    model = bright_model()
    monkeypatch.setattr(module, "load_model", lambda *a, **k: model)
    monkeypatch.setattr(module, "find_lesions", find_bright)
    monkeypatch.setattr(module, "scan_note", lambda *a: QualityNote("flair", "good"))
    monkeypatch.setattr(module, "add_locations", lambda found, tables, known: (found, tables))

    def page(output, scan):
        path = output / f"{module.ScanFiles(output, scan).page}"
        path.write_text("page")
        return path

    monkeypatch.setattr(module, "write_scan_page", page)


def masks(folder):
    return sorted(folder.rglob("*_label-L_mask.nii.gz"))


def snapshot(folder):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*.nii.gz")}


def test_a_result_of_another_scan_is_never_overwritten(tmp_path, quick):
    first = save(tmp_path / "anna" / "sub-1_FLAIR.nii.gz", image("a"))
    second = save(tmp_path / "bert" / "sub-1_FLAIR.nii.gz", image("ab"))
    segment([first], tmp_path / "out")
    before = snapshot(tmp_path / "out")
    with pytest.raises(InputError, match=r"bert/sub-1_FLAIR.*results of .*anna/sub-1_FLAIR"):
        segment([second], tmp_path / "out")
    with pytest.raises(InputError, match="choose another output folder"):
        segment([second], tmp_path / "out", overwrite=True)
    assert snapshot(tmp_path / "out") == before


def test_calls_one_by_one_share_the_tables_and_the_index(tmp_path, quick):
    for name in "ab":
        done = segment([save(tmp_path / f"{name}.nii.gz", image(name))], tmp_path / "out")
        assert done.summary["subject"].tolist() == [f"sub-{name}"]
    scans = pd.read_csv(tmp_path / "out" / "scans.tsv", sep="\t")
    assert scans["subject"].tolist() == ["sub-a", "sub-b"]
    assert scans["source"].tolist() == [str(tmp_path / f"{name}.nii.gz") for name in "ab"]
    lesions = pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")
    assert lesions["source"].tolist() == scans["source"].tolist()
    described = json.loads((tmp_path / "out" / "scans.json").read_text())
    assert set(described) == set(scans.columns)
    index = (tmp_path / "out" / "index.html").read_text()
    assert "sub-a.html" in index
    assert "sub-b.html" in index


@pytest.mark.parametrize("what", ["cut", "missing map", "emptied table"])
def test_a_scan_whose_results_are_not_whole_is_done_again(tmp_path, quick, what):
    scan = save(tmp_path / "a.nii.gz", image("ab"))
    segment([scan], tmp_path / "out")
    path = {
        "cut": masks(tmp_path / "out")[0],
        "missing map": next((tmp_path / "out").rglob("*seg-acls_dseg.nii.gz")),
        "emptied table": next((tmp_path / "out").rglob("*seg-offsets_dseg.tsv")),
    }[what]
    whole = path.read_bytes()
    if what == "missing map":
        path.unlink()
    else:
        path.write_bytes(whole[:300] if what == "cut" else whole.splitlines()[0])
    done = segment([scan], tmp_path / "out")
    assert path.read_bytes() == whole
    assert done.summary["lesions"].tolist() == [2]
    assert len(pd.read_csv(tmp_path / "out" / "lesions.tsv", sep="\t")) == 2


def test_scans_never_share_their_folder_with_results(tmp_path, quick):
    scan = save(tmp_path / "scans" / "a.nii.gz", image("a"))
    with pytest.raises(InputError, match="would be among the scans"):
        segment([scan.parent], scan.parent)
    assert list(scan.parent.iterdir()) == [scan]


def test_the_failure_of_one_call_stands_beside_the_results_of_another(tmp_path, quick):
    good = save(tmp_path / "good.nii.gz", image("a"))
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    segment([good], tmp_path / "out")
    with pytest.raises(InputError):
        segment([bad], tmp_path / "out")
    failures = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
    assert failures["file"].tolist() == [str(bad)]
    save(bad, image("b"))
    segment([bad], tmp_path / "out")
    assert not (tmp_path / "out" / "failures.tsv").exists()
    assert len(pd.read_csv(tmp_path / "out" / "scans.tsv", sep="\t")) == 2


def test_other_settings_are_refused_unless_all_is_done_again(tmp_path, quick):
    scan = save(tmp_path / "a.nii.gz", image("ab"))
    segment([scan], tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    other = FindOptions(also=("offsets", "acls", "cc"), threshold=0.9)
    with pytest.raises(InputError, match=r"was begun with threshold not set, now it is 0\.9"):
        segment([scan], tmp_path / "out", options=other)
    assert {path: path.read_bytes() for path in before} == before
    segment([scan], tmp_path / "out", options=other, overwrite=True)
    sidecar = json.loads(next((tmp_path / "out").rglob("*label-L_mask.json")).read_text())
    assert sidecar["Settings"]["threshold"] == 0.9
    second = save(tmp_path / "b.nii.gz", image("a"))
    with pytest.raises(InputError, match=r"was begun with threshold 0\.9, now it is not set"):
        segment([second], tmp_path / "out", overwrite=True)


def test_what_is_left_out_of_a_folder_is_listed_with_the_reason(tmp_path, quick):
    lab = tmp_path / "lab"
    save(lab / "p1" / "FLAIR.nii.gz", image("a"))
    t1 = save(lab / "p1" / "T1.nii.gz", image(""))
    done = segment([lab], tmp_path / "out")
    assert not done.failures
    failures = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
    assert failures["file"].tolist() == [str(t1)]
    assert failures["error"].tolist() == ["left out: its name says t1, not FLAIR"]
    t1.unlink()
    segment([lab], tmp_path / "out")
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_a_name_too_long_for_results_is_listed_and_the_others_go_on(tmp_path, quick):
    paths = [tmp_path / f"sub-{name}_FLAIR.nii.gz" for name in ("a", "x" * 230)]
    for path in paths:
        save(path, image("a"))
    done = segment(paths, tmp_path / "out")
    assert list(done.summary["subject"]) == ["sub-a"]
    assert list(done.failures) == [str(paths[1])]
    assert "too long" in done.failures[str(paths[1])]


def test_limits_that_cannot_hold_are_refused_before_the_first_scan(tmp_path, quick):
    path = tmp_path / "sub-a_FLAIR.nii.gz"
    save(path, image("a"))
    for options in (FindOptions(min_volume_mm3=float("inf")), FindOptions(threshold=2.0)):
        with pytest.raises(InputError, match="is not a finite number"):
            segment([path], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_results_that_are_replaced_leave_nothing_of_their_methods(tmp_path, quick, monkeypatch):
    path, out = tmp_path / "sub-a_FLAIR.nii.gz", tmp_path / "out"
    save(path, image("a"))
    segment([path], out)
    (out / "sub-a" / "anat" / "sub-a_seg-mine_dseg.nii.gz").touch()

    def only_acls(*arguments, **options):
        found = find_bright(*arguments, **options)
        return replace(found, instances={"acls": found.instances["acls"]})

    monkeypatch.setattr(module, "find_lesions", only_acls)
    segment([path], out, overwrite=True)
    names = {p.name for p in out.rglob("*") if "seg-" in p.name}
    stem = "sub-a_space-orig_seg-acls_dseg"
    assert names == {
        "sub-a_seg-mine_dseg.nii.gz",
        *(stem + e for e in (".nii.gz", ".tsv", ".json")),
    }
