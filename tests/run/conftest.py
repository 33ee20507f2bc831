"""What tests of the commands share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for heads.py, beside the tests that use it

from heads import bright_model


@pytest.fixture
def model(monkeypatch):
    """The commands load this model, whatever its name."""
    loaded = bright_model()
    for command in ("segment", "compare"):
        monkeypatch.setattr(f"lesionwise.run.{command}.load_model", lambda *a, **k: loaded)
    return loaded
