"""The command ``predict``: a trained run, applied with its recipe's own settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.load_model import LoadedModel, load_model
from lesionwise.run.predict_pairs import predict_pairs
from lesionwise.run.segment import segment
from lesionwise.types import Progress, no_progress


@dataclass(frozen=True, eq=False)
class PredictResult:
    """What a model found.

    Attributes:
        summary: a row for each scan, or for each pair of visits.
        failures: the error by what it concerns.
    """

    summary: pd.DataFrame
    failures: dict[str, str]


def predict(
    model: str | Path | LoadedModel,
    scans: Sequence[Path],
    output: Path,
    *,
    device: str = "auto",
    trust_recipe: bool = False,
    same_patient: bool = False,
    progress: Progress = no_progress,
) -> PredictResult:
    """Apply a model to each scan, or to each pair of visits where its recipe takes two.

    Args:
        model: a run folder of ``train``, a shipped model, or one that is loaded.
        scans: files, folders or BIDS data sets.
        output: folder for the results; see ``docs/guide/output.md``.
        device: "auto", "cpu", "cuda" …
        trust_recipe: let the recipe file inside the run execute.
        same_patient: visits of a pair are of one patient although their headers say otherwise.

    Raises:
        InputError: If the model cannot be loaded, or no scan can be read.
    """
    loaded = load_model(model, device, trust_recipe=trust_recipe)
    if loaded.recipe.visits == 2:
        pairs = predict_pairs(
            scans, output, model=loaded, same_patient=same_patient, progress=progress
        )
        return PredictResult(pairs.summary, pairs.failures)
    done = segment(
        scans, output, model=loaded, options=FindOptions(), device=device, progress=progress
    )
    return PredictResult(done.summary, done.failures)
