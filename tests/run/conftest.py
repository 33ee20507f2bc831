"""What tests of the commands share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for heads.py, beside the tests that use it

from heads import bright_model

from lesionwise.types import InputError


def _nowhere(*arguments):
    raise InputError("no template in this test")  # laying it onto a head takes most of the time


@pytest.fixture
def model(monkeypatch):
    """The commands load this model, whatever its name."""
    loaded = bright_model()
    monkeypatch.setattr("lesionwise.run.locations.find_landmarks", _nowhere)
    for command in ("segment", "compare"):
        monkeypatch.setattr(f"lesionwise.run.{command}.load_model", lambda *a, **k: loaded)
    return loaded
