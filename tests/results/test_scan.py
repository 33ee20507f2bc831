"""The results of one scan, written and read again."""

import numpy as np
import pandas as pd
import pytest

from lesionwise.io.files import read_json, write_json
from lesionwise.results.lesion_set import read_lesion_table
from lesionwise.results.names import ScanFiles, beside
from lesionwise.results.scan import ScanRecord, ScanResult, damaged, scan_row
from lesionwise.types import InputError


def same(one, other):
    assert np.allclose(one.array, other.array)
    assert one.grid.matches(other.grid)


def test_all_of_it_comes_back(tmp_path, scan_result):
    result = scan_result(known=True)
    record = result.write(tmp_path)
    again = ScanResult.read(tmp_path, result.scan)
    assert again.record == record
    for name in ("probability", "mask", "brain"):
        same(getattr(again, name), getattr(result, name))
    assert list(again.lesions) == ["cc", "acls"]
    for found in (again.lesions["cc"], again.lesions["acls"], again.known):
        assert np.array_equal(found.instances.labels, result.lesions["cc"].instances.labels)
        assert found.table["label"].tolist() == [1, 2]
        assert found.table["voxels"].tolist() == [8, 27]
        assert found.table["location"].tolist() == ["periventricular", "deep white matter"]
    assert again.pictures == result.pictures


def test_the_record_names_every_image_table_and_picture_but_not_itself(tmp_path, scan_result):
    result = scan_result()
    record = result.write(tmp_path)
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    kinds = (".nii.gz", ".tsv", ".webp")
    assert set(record.files) == {name for name in written if name.endswith(kinds)}


@pytest.mark.parametrize("what", ["cut", "gone", "empty", "other"])
def test_a_result_that_is_not_what_was_written_is_noticed(tmp_path, scan_result, what):
    result = scan_result()
    record = result.write(tmp_path)
    assert damaged(tmp_path, record) == ""
    files = ScanFiles(tmp_path, result.scan)
    path = beside(files.instances("acls"), ".tsv") if what == "empty" else files.mask
    content = path.read_bytes()
    if what == "gone":
        path.unlink()
    else:
        other = bytes([*content[:-1], content[-1] ^ 1])
        path.write_bytes({"cut": content[:30], "empty": b"", "other": other}[what])
    assert path.name in damaged(tmp_path, record)
    assert (damaged(tmp_path, record, read=False) == "") == (what == "other")


def test_a_name_in_the_record_that_leads_out_of_the_folder_is_refused(tmp_path, scan_result):
    result = scan_result()
    result.write(tmp_path / "out")
    sidecar = ScanFiles(tmp_path / "out", result.scan).sidecar
    content = read_json(sidecar)
    content["Files"]["../secret"] = {"bytes": 1, "sha256": "0"}
    write_json(sidecar, content)
    record = ScanRecord.read(ScanFiles(tmp_path / "out", result.scan))
    with pytest.raises(InputError, match="not the name of a file inside this folder"):
        damaged(tmp_path / "out", record)


@pytest.mark.parametrize("picture", ["../../secret", "/etc/hostname", "a\\..\\b", ""])
def test_a_picture_outside_the_folder_is_refused(tmp_path, scan_result, picture):
    result = scan_result()
    result.write(tmp_path / "out")
    (tmp_path / "secret").write_text("secret")
    sidecar = ScanFiles(tmp_path / "out", result.scan).sidecar
    content = read_json(sidecar)
    content["Stages"][0]["Picture"] = picture
    write_json(sidecar, content)
    with pytest.raises(InputError, match="not the name of a file inside this folder"):
        ScanResult.read(tmp_path / "out", result.scan)


def test_counts_and_volume_are_those_of_the_lesions_and_the_mask_stands_beside(
    tmp_path, scan_result
):
    result = scan_result()
    record = result.write(tmp_path)
    files = ScanFiles(tmp_path, result.scan)
    tables = {method: read_lesion_table(files, method) for method in record.methods}
    row = scan_row(files, record, tables)
    voxel_mm3 = result.mask.grid.voxel_volume_mm3
    assert (row["lesions"], row["lesions_acls"], row["lesions_offsets"]) == (2, 2, None)
    assert row["volume_ml"] == round(tables["cc"]["volume_mm3"].sum() / 1000, 3)
    assert row["volume_ml"] == pytest.approx(35 * voxel_mm3 / 1000, abs=5e-4)
    assert row["mask_volume_ml"] == pytest.approx(36 * voxel_mm3 / 1000, abs=5e-4)
    names = (row["subject"], row["session"], row["scan"], row["source"], row["page"])
    assert names == (
        "sub-01", "ses-M12", "sub-01_ses-M12_acq-2D", "/scans/a.nii.gz",
        "sub-01_ses-M12_acq-2D.html",
    )  # fmt: skip


def test_a_scan_without_lesions_comes_back_too(tmp_path, scan_result):
    result = scan_result()
    empty = {
        name: type(lesions)(
            type(lesions.instances)(lesions.instances.labels * 0, lesions.instances.grid),
            lesions.table.iloc[:0],
        )
        for name, lesions in result.lesions.items()
    }
    result = ScanResult(**{**vars(result), "lesions": empty})
    record = result.write(tmp_path)
    files = ScanFiles(tmp_path, result.scan)
    tables = {method: read_lesion_table(files, method) for method in record.methods}
    assert scan_row(files, record, tables)["lesions"] == 0
    assert scan_row(files, record, tables)["volume_ml"] == 0


BAD = [
    ("Sources", []),
    ("Sources", "a.nii.gz"),
    ("Methods", None),
    ("Methods", []),
    ("Quality", [{"about": "flair", "grade": "superb", "reasons": [], "measures": {}}]),
    ("Stages", [{"Step": "as read"}]),
    ("Files", {"a": {"bytes": "many", "sha256": "0"}}),
    ("Settings", 3),
    ("Seconds", {"network": "long"}),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_sidecar_with_a_wrong_value_is_one_line(tmp_path, scan_result, key, value):
    result = scan_result()
    result.write(tmp_path)
    sidecar = ScanFiles(tmp_path, result.scan).sidecar
    write_json(sidecar, {**read_json(sidecar), key: value})
    with pytest.raises(InputError, match=r"label-L_mask\.json: ") as error:
        ScanRecord.read(ScanFiles(tmp_path, result.scan))
    assert "\n" not in str(error.value)


def test_a_table_without_volumes_is_one_line(tmp_path, scan_result):
    result = scan_result()
    result.write(tmp_path)
    files = ScanFiles(tmp_path, result.scan)
    path = beside(files.instances("cc"), ".tsv")
    for text in ("index\tname\n1\tlesion\n", "index\tvolume_mm3\n1\tbig\n", "", "\x00"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"seg-cc_dseg\.tsv"):
            read_lesion_table(files, "cc")


def test_tables_are_rounded(tmp_path, scan_result):
    result = scan_result()
    result.write(tmp_path)
    path = beside(ScanFiles(tmp_path, result.scan).instances("cc"), ".tsv")
    volumes = pd.read_csv(path, sep="\t")["volume_mm3"]
    assert (volumes == volumes.round(1)).all()
