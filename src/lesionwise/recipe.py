"""A recipe: one published system as numbers and parts, without behavior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lesionwise.types import NOTHING, Finds, LearnedStep, Method, Refine, Step, ToInstances


@dataclass(frozen=True)
class Output:
    """The grid results are returned on, and what is resampled to reach it.

    Attributes:
        grid: the first visit's input grid, the last visit's, or the grid prepared for the method.
        resample: what goes through interpolation; labels go by nearest neighbor.
    """

    grid: Literal["baseline", "followup", "prepared"] = "followup"
    resample: Literal["probability", "logits", "labels"] = "probability"


@dataclass(frozen=True)
class Recipe:
    """One system.

    Attributes:
        source: the document and section it is taken from.
        scans: the scans every visit must have, in channel order.
        preprocess: steps from the study as read to the study the method sees; those that learn
            are fitted on the training studies of each fold.
        method: how maps are learned and predicted.
        to_instances: how maps become lesions.
        threshold: the lesion mask is probability > threshold.
        refine: filters that act on lesions, never on the mask.
        visits: how many time points it needs.
        finds: what the mask is of.
        output: where results are returned.
        reported: the source's own scores, by metric name.
        departures: where we knowingly differ from the source, and why.
    """

    source: str
    scans: tuple[str, ...]
    preprocess: tuple[Step | LearnedStep, ...]
    method: Method
    to_instances: ToInstances
    threshold: float = 0.5
    refine: tuple[Refine, ...] = ()
    visits: int = 1
    finds: Finds = "lesions"
    output: Output = Output()
    reported: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    departures: tuple[str, ...] = ()
