"""The pages of what ``segment`` found."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from lesionwise.io.bids import FoundScan
from lesionwise.report.page import CohortPage, write_index_page
from lesionwise.run.predict import LoadedModel


def page_of(output: Path, scan: FoundScan) -> Path:
    """Where the page of one scan lies."""
    return output / f"{'_'.join(f'{k}-{v}' for k, v in scan.entities.pairs().items())}.html"


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    packages = ("torch", "numpy", "scipy", "simpleitk")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def write_index(
    output: Path, summary: pd.DataFrame, failures: Mapping[str, str], model: LoadedModel
) -> Path:
    """The page over all scans, ``index.html``, with links to each."""
    return write_index_page(
        CohortPage(
            title="Lesions of all scans",
            scans=summary,
            failures=pd.DataFrame(
                [{"file": name, "fault": fault} for name, fault in failures.items()],
                columns=["file", "fault"],
            ),
            distributions=("lesions", "volume_ml"),
            provenance={"recipe": model.name, "model": model.sha256[:12]},
        ),
        output / "index.html",
    )
