"""The command ``report``: the pages of a results folder again, from its files."""

from __future__ import annotations

from pathlib import Path

from lesionwise.cohort.group import is_cohort, rebuild
from lesionwise.report.folder import PageResult, rebuild_pages
from lesionwise.run.evaluate import ASKED, evaluate_again
from lesionwise.types import Progress, no_progress


def report(
    output: Path, progress: Progress = no_progress, *, hide_face: bool = False
) -> PageResult:
    """Write the pages of a folder of segment, compare, predict, evaluate, benchmark or cohort.

    Args:
        output: the folder.
        progress: called with each stage.
        hide_face: pages of scans show nothing but the brain, also where results were made without
            brain extraction; it is looked for in each scan.

    Raises:
        InputError: If nothing there has a page, or the files are damaged.
    """
    if (output / ASKED).is_file():
        again = evaluate_again(output, progress)
        pages = () if again.page is None else (again.page,)
        return PageResult(pages, dict(again.failures))
    again_of = rebuild if is_cohort(output) else rebuild_pages
    return again_of(output, progress, hide_face=hide_face)
