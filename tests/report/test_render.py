import pytest

from lesionwise.report.render import NOT_A_DEVICE, data_uri, number, render, safe_link, shown

MISSING = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1234567, 0, "1\u202f234\u202f567"),
        (-0.5, 1, "\N{MINUS SIGN}0.5"),
        (2394.5, 0, "2\u202f395"),
        (float("inf"), 0, "inf"),
        (float("nan"), 2, MISSING),
        (None, 0, MISSING),
        ("text", 0, "text"),
        (True, 0, "1"),
    ],
)
def test_numbers_are_written_for_reading(value: object, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (("a", 1), "a, 1"),
        ({"a": 1.5}, "a: 1.5"),
        (2.0, "2"),
        (0.123456, "0.1235"),
        (None, MISSING),
    ],
)
def test_provenance_is_written_for_reading(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "https://x.org", "/etc", "\\\\server", "data:x"]
)
def test_a_link_leads_nowhere_but_beside_the_page(target: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        safe_link(target)


def test_a_link_keeps_folders_and_escapes_the_rest() -> None:
    assert safe_link('sub-01/a "b".html') == "sub-01/a%20%22b%22.html"


def test_bytes_become_an_address() -> None:
    assert data_uri(b"abc", "image/png") == "data:image/png;base64,YWJj"


def test_values_are_escaped_and_the_notice_stands_once() -> None:
    page = render("base.html", title="<script>alert(1)</script>")
    assert "<script>alert" not in page
    assert page.count(NOT_A_DEVICE) == 1


def test_a_page_may_ask_for_nothing_outside_itself() -> None:
    assert "default-src 'none'" in render("base.html", title="x")
