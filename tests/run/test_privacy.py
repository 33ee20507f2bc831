"""What a scan's header tells about the patient stays out of pages, tables and names of files."""

import gzip

import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dcm2niix")

from heads import head  # noqa: E402
from series import write_series  # noqa: E402

from lesionwise.run.compare import compare  # noqa: E402
from lesionwise.run.find_lesions import FindOptions  # noqa: E402

PATIENT = "PLANTEDPERSON"
PLANTED = (PATIENT.encode(), b"19600102", b"20200304", b"20210304", b"47110815")
"""Name, number, comment, hospital and doctor hold the first; then birth date, days, number.

Eight digits each: four of them turn up in hashes by chance.
"""


def test_nothing_written_tells_name_birth_date_or_institution(tmp_path, model):
    days = ("20200304", "20210304")
    visits = [
        write_series(tmp_path / f"v{number}", head("ab"), patient=PATIENT, date=day)
        for number, day in enumerate(days)
    ]
    planted = b"".join(path.read_bytes() for path in visits[0].iterdir())
    assert all(word in planted for word in PLANTED if word != b"20210304")
    output = tmp_path / "out"
    compare(visits, output, options=FindOptions(extract_brain=False))
    looked_at = 0
    for path in output.rglob("*"):
        assert PATIENT not in path.name
        if path.is_dir() or path.suffix == ".dcm":  # a DICOM object belongs to its patient
            continue
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert [word for word in PLANTED if word in content] == [], path
        looked_at += 1
    assert looked_at > 20
    assert (output / "index.html").is_file()
