"""The pages of what ``segment`` and ``compare`` found."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.io.bids import FoundScan
from lesionwise.report.page import (
    CohortPage,
    VisitView,
    write_index_page,
)
from lesionwise.run.find import Found
from lesionwise.run.predict import LoadedModel


def page_of(output: Path, scan: FoundScan) -> Path:
    """Where the page of one scan lies."""
    return output / f"{'_'.join(f'{k}-{v}' for k, v in scan.entities.pairs().items())}.html"


def view_of(found: Found, source: str, **further: Any) -> VisitView:
    """One visit as a page shows it."""
    return VisitView(
        session=found.visit.session,
        image=next(iter(found.visit.scans.values())),
        instances=found.instances,
        brain=found.brain,
        warnings=found.warnings,
        source=source,
        **further,
    )


def provenance_of(
    model: LoadedModel, options: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What made a page, as it prints it."""
    return {
        "recipe": model.name,
        "source": model.recipe.source,
        "model": model.sha256[:12],
        "departures": list(model.recipe.departures),
        "options": {name: value for name, value in options.items() if value is not None},
        "seconds": {stage: round(time, 1) for stage, time in seconds.items()},
    }


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
