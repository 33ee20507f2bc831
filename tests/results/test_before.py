"""Folders that an earlier version wrote are still read."""

import pandas as pd

from lesionwise.cohort.group import group
from lesionwise.report.folder import rebuild_pages
from lesionwise.results.comparison import ComparisonResult
from lesionwise.results.folder import compared_scans, read_folder


def test_tables_come_from_what_segment_wrote(before):
    tables = read_folder(before / "segmented")
    assert tables.scans["subject"].tolist() == ["sub-a", "sub-b"]
    assert tables.scans["lesions"].tolist() == [26, 27]
    old = pd.read_csv(before / "segmented" / "scans.tsv", sep="\t")
    assert (tables.scans["mask_volume_ml"] - old["volume_ml"]).abs().max() < 1e-3
    assert not tables.failures


def test_pages_come_from_what_segment_wrote(before):
    made = rebuild_pages(before / "segmented")
    assert [page.name for page in made.pages] == ["sub-a_ses-01.html", "sub-b.html", "index.html"]
    assert not made.failures


def test_the_page_of_a_comparison_comes_from_what_compare_wrote(before):
    made = rebuild_pages(before / "compared")
    assert [page.name for page in made.pages] == ["index.html"]
    text = made.pages[0].read_text()
    assert 'data-state="new"' in text


def test_a_comparison_is_read_with_its_present_words(before):
    place = before / "compared"
    result = ComparisonResult.read(place, compared_scans(place, place))
    assert [scan.ses for scan in result.scans] == ["01", "02"]
    assert result.visits["session"].tolist() == ["ses-01", "ses-02"]
    assert {"enlarging", "disappeared", "equivocal"} <= set(result.visits.columns)
    assert result.tracks["state"].value_counts()["new"] == 3
    assert len(result.record.matrices) == 2


def test_a_cohort_is_gathered_again(before):
    gathered = group(before / "cohort")
    assert gathered.scans["subject"].tolist() == ["sub-a", "sub-a", "sub-b"]
    assert gathered.scans["session"].tolist()[:2] == ["ses-01", "ses-02"]
    assert gathered.scans["new"].tolist()[1] == 3
    assert gathered.participants["participant_id"].tolist() == ["sub-a", "sub-b"]
    assert len(gathered.failures) == 1
