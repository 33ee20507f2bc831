"""Labels behind one option, as BIDS Apps take them."""

import pytest

from lesionwise.cohort.arguments import one_label_an_option

BIDS = "bids out participant"
ONE = " --participant_label"


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (f"{BIDS} --participant_label 1 2 3", f"{BIDS}{ONE} 1{ONE} 2{ONE} 3"),
        (f"{BIDS}{ONE} 1 2 --workers 2", f"{BIDS}{ONE} 1{ONE} 2 --workers 2"),
        (f"--session-label A B {BIDS}", f"--session-label A --session-label B {BIDS}"),
        (f"{ONE} 1 {BIDS} --device cpu", f"{ONE} 1 {BIDS} --device cpu"),
        (f"{BIDS} --participant-label=1", f"{BIDS} --participant-label=1"),
        (f"{BIDS}{ONE}", f"{BIDS}{ONE}"),
        ("", ""),
    ],
)
def test_labels_become_options(given, understood):
    assert one_label_an_option(given.split()) == understood.split()
