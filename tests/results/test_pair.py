"""New lesions of two visits, written and read again."""

import numpy as np
import pytest

from lesionwise.io.files import read_json, write_json
from lesionwise.io.names import Entities
from lesionwise.results.folder import write_pairs
from lesionwise.results.names import PairFiles, pair_page
from lesionwise.results.pair import PairRecord, PairResult
from lesionwise.types import InputError

SCAN = Entities(sub="01", ses="M12", acq="3D")


def result(scan_result, prepared=False):
    one = scan_result()
    record = PairRecord(
        sources=("/scans/a.nii.gz", "/scans/b.nii.gz"),
        method="cc",
        shown="/scans/b.nii.gz",
        baseline="M00",
        followup="M12",
        recipe="none",
        threshold=0.5,
        warnings=("thick slices",),
        seconds={"network": 1.5},
        settings={"scans": ["0", "1"]},
        versions={"python": "3.11"},
    )
    shown = ("flair", one.probability) if prepared else None
    return PairResult(SCAN, record, one.probability, one.mask, one.brain, one.lesions["cc"], shown)


@pytest.mark.parametrize("prepared", [False, True])
def test_all_of_it_comes_back(tmp_path, scan_result, prepared):
    written = result(scan_result, prepared)
    record = written.write(tmp_path)
    again = PairResult.read(tmp_path, SCAN)
    assert again.record == record
    for name in ("probability", "mask", "brain"):
        assert np.array_equal(getattr(again, name).array, getattr(written, name).array)
    assert np.array_equal(again.lesions.instances.labels, written.lesions.instances.labels)
    assert again.lesions.table["voxels"].tolist() == [8, 27]
    assert (tmp_path / record.shown).exists() == prepared
    assert set(record.files) == {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.suffix in (".gz", ".tsv")
    }


def test_tables_hold_every_pair_of_the_folder(tmp_path, scan_result):
    result(scan_result).write(tmp_path)
    pairs, failures = write_pairs(tmp_path, "lesionwise predict")
    assert failures == {}
    row = pairs.iloc[0]
    assert row[["subject", "baseline", "followup", "lesions"]].tolist() == [
        "sub-01", "ses-M00", "ses-M12", 2,
    ]  # fmt: skip
    assert row["mask_volume_ml"] > row["volume_ml"]
    assert row["page"] == pair_page(SCAN, "M00", "M12") == "sub-01_ses-M00_ses-M12_acq-3D_new.html"
    assert set(read_json(tmp_path / "new_lesions.json")) >= {"volume_mm3", "scan", "source"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Sources", ["a"]),
        ("Method", 3),
        ("Method", "../x"),
        ("Shown", None),
        ("Settings", []),
        ("Baseline", "../x"),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, scan_result, key, value):
    result(scan_result).write(tmp_path)
    path = PairFiles(tmp_path, SCAN).sidecar
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(InputError, match=r"desc-new_mask\.json: "):
        PairRecord.read(PairFiles(tmp_path, SCAN))
