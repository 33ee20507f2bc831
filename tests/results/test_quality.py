"""Grades of inputs, as sidecars hold them."""

from lesionwise.results.quality import QualityNote


def test_a_note_comes_back_from_its_entry() -> None:
    note = QualityNote("flair", "fair", ("noisy",), {"cut_fraction": 0.25})
    assert QualityNote.read(note.written()) == note


def test_measures_of_earlier_versions_have_their_present_names() -> None:
    entry = {"about": "flair", "grade": "good", "reasons": [], "measures": {"ghost_share": 0.125}}
    assert QualityNote.read(entry).measures == {"ghost_fraction": 0.125}
