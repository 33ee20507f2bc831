"""What every test may use."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["LESIONWISE_CACHE"] = ""  # tests leave nothing in the cache folder of the user

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # modules that several tests share

# A busy machine is slow at times; how long one example takes says nothing about the code.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

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


@pytest.fixture
def call(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit status, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from lesionwise.cli import main

        monkeypatch.setattr(sys, "argv", ["lesionwise", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.fixture(autouse=True)
def same_weights_every_time():
    """Networks that a test makes begin with the same weights at each run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
