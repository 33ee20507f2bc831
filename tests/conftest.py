"""What every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / ".." / "shared"


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """A path among the real scans and reference vectors, which live beside the project.

    Where they are missing the test is skipped, with the reason; under CI it fails.
    """

    def find(relative: str) -> Path:
        path = (SHARED / relative).resolve()
        if not path.exists():
            reason = f"{relative} is not at hand (looked beside the project, in ../shared)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find
