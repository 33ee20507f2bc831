import json
from datetime import datetime, timedelta

import pytest

from lesionwise.io.sidecar import acquired, parse_time
from lesionwise.io.visit_order import check_visit_order, order_visits, visit_times
from lesionwise.types import InputError

EARLY, LATE = datetime(2020, 1, 1), datetime(2021, 1, 1)


def table(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(row) for row in rows) + "\n")


def test_dates_decide_where_each_visit_has_one_and_else_the_numbers_in_the_names():
    assert order_visits(["M2", "M10"], {"M2": LATE, "M10": EARLY}) == ["M10", "M2"]
    assert order_visits(["M10", "M2"], {"M10": EARLY}) == ["M2", "M10"]
    assert order_visits(["b", "a"], {"a": EARLY, "b": EARLY}) == ["a", "b"]


def test_times_come_from_the_table_of_sessions_and_else_from_those_of_scans(tmp_path):
    folder = tmp_path / "sub-1"
    table(folder / "sub-1_sessions.tsv", ("session_id", "acq_time"), ("ses-a", "2021-01-01"),
          ("ses-b", "n/a"))  # fmt: skip
    table(folder / "ses-b" / "sub-1_ses-b_scans.tsv", ("filename", "acq_time"),
          ("x.nii", "2020-02-01"), ("y.nii", "2020-01-01T00:00:00"))  # fmt: skip
    assert visit_times(tmp_path, "1", ["a", "b", "c"]) == {"a": LATE, "b": EARLY}


def test_times_with_a_zone_are_compared_in_one(tmp_path):
    path = tmp_path / "sub-1" / "sub-1_sessions.tsv"
    head = ("session_id", "acq_time")
    table(path, head, ("ses-a", "2020-01-01T00:00:00Z"), ("ses-b", "2020-01-01T00:30:00+01:00"))
    times = visit_times(tmp_path, "1", ["a", "b"])
    assert times["b"] < times["a"] == EARLY
    table(path, head, ("ses-a", "2020-01-01T00:00:00Z"), ("ses-b", "2020-01-01"))
    with pytest.raises(InputError, match="some times have a time zone and some have none"):
        visit_times(tmp_path, "1", ["a", "b"])


def test_visits_in_several_time_zones_are_ordered_by_the_same_clock(tmp_path):
    scans = [tmp_path / f"sub-1_ses-{session}_FLAIR.nii.gz" for session in "ab"]
    for scan, stated in zip(scans, ("2020-03-04T01:00+09:00", "2020-03-03T20:00Z"), strict=True):
        sidecar = scan.with_name(scan.name.replace(".nii.gz", ".json"))
        sidecar.write_text(json.dumps({"AcquisitionDateTime": stated}))
    times = [acquired(scan) for scan in scans]
    check_visit_order(scans, times)
    with pytest.raises(InputError, match=r"ses-a_FLAIR.*acquired before.*ses-b"):
        check_visit_order(scans[::-1], times[::-1])


@pytest.mark.parametrize("hours", [-30, -10, 10, 30])
def test_a_time_whose_zone_is_not_known_counts_only_where_it_is_sure(hours):
    stated = parse_time("2020-03-04T12:00:00Z")
    other = datetime(2020, 3, 4, 12) + timedelta(hours=hours)
    if hours == -30:
        with pytest.raises(InputError, match="acquired before"):
            check_visit_order(["a", "b"], [stated, other])
    else:
        check_visit_order(["a", "b"], [stated, other])


def test_a_time_that_is_none_is_named(tmp_path):
    path = tmp_path / "sub-1" / "sub-1_sessions.tsv"
    table(path, ("session_id", "acq_time"), ("ses-a", "yesterday"))
    with pytest.raises(InputError, match=r"sub-1_sessions\.tsv: yesterday is not a time"):
        visit_times(tmp_path, "1", ["a", "b"])


@pytest.mark.parametrize(
    "visits",
    [
        ["P14_T2_FLAIR.nii.gz", "P14_T1_FLAIR.nii.gz"],
        ["M12", "M00"],
        ["T1", "T10", "T2"],
        ["2021", "2020"],
    ],
)
def test_visits_whose_names_run_backwards_are_refused(visits):
    with pytest.raises(InputError, match="by its name before"):
        check_visit_order(visits)
    check_visit_order(sorted(visits, key=len)[:1])


def test_names_without_an_order_pass():
    check_visit_order(["baseline.nii", "followup.nii"])
    check_visit_order(["P2_T1.nii", "P1_T2.nii"])
    check_visit_order(["T1", "T2", "T10"])


def test_dates_decide_over_names():
    check_visit_order(["M12", "M00"], [EARLY, LATE])
    with pytest.raises(InputError, match="M12: acquired before M00"):
        check_visit_order(["M00", "M12"], [LATE, EARLY])
    with pytest.raises(InputError, match="by its name"):
        check_visit_order(["M12", "M00"], [EARLY, None])


def test_names_count_where_all_dates_are_one():
    day = datetime(1900, 1, 1)  # as anonymized headers have it
    with pytest.raises(InputError, match="M00: by its name before M12"):
        check_visit_order(["M12", "M00"], [day, day])
    check_visit_order(["M00", "M12"], [day, day])
