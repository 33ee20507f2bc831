"""Which of the best weights becomes the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy  # its part stats, which takes half a second, is imported when it is first used
from numpy.typing import NDArray

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.instances.reference import hard_labels, reference_of
from lesionwise.metrics.case import KEYS, Options, evaluate_case
from lesionwise.metrics.evaluation import LOWER_IS_BETTER, NOT_COMPARED
from lesionwise.types import Instances, Predictor, Refine, Study, ToInstances

METRICS: Mapping[str, int] = {
    "lesion_precision": 1,
    "lesion_recall": 1,
    "lesion_f1": 1,
    "clu_recall": 1,
    "dic": -1,
    "dsc": 1,
    "dsc_tp": 1,
    "dsc_tp_clu": 1,
    "pq": 1,
}
"""The table of Wynen et al. (ConfLUNet): +1 where more is better, -1 where less is."""


@dataclass(frozen=True)
class Selection:
    """The weights with the best mean rank over all metrics, among the best by validation.

    Attributes:
        top_k: how many weights, the best by ``by``, are compared; 1 takes the best one.
        threshold: the mask is probability > threshold.
        to_instances: tells lesions apart; None compares masks alone, which is ``top_k`` 1.
        refine: filters on lesions, applied to both sides, as in evaluation. Departure: ConfLUNet,
            section 3.3, speaks of predictions; with the reference unfiltered, each of its small
            lesions would count as missed however good the weights are, and a weight that keeps
            specks would win.
        by: the scores whose sum ranks weights while training: ``dsc``, ``soft_dsc`` (of the
            probabilities and, where it has them, the reference's fractions) or any key of
            ``metrics.case`` of which more is better, for lesions as ``to_instances`` tells them
            apart, by default components; None is ``dsc`` alone.
        every: epochs between validations; the last epoch is always validated. 0 never validates,
            so the last weights are used.
        window: how validation covers a volume.
        loss_samples: samples of the validation studies, without augmentation, whose mean loss is
            ``validation_loss`` of every epoch's row of the log; 0 computes none.

    Source: Wynen et al. (ConfLUNet), section 3.4: all validation metrics for the ten models with
    the highest Dice. How they are weighed against each other it does not say.
    """

    top_k: int = 1
    threshold: float = 0.5
    to_instances: ToInstances | None = None
    refine: tuple[Refine, ...] = ()
    by: tuple[str, ...] | None = None
    every: int = 5
    window: SlidingWindow = field(default_factory=lambda: SlidingWindow(overlap=0.25))
    loss_samples: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.ranked_by) - {"soft_dsc", *KEYS}
        if unknown:
            raise ValueError(f"by: no metric is called {min(unknown)}")
        fewer = set(self.ranked_by) & (LOWER_IS_BETTER | NOT_COMPARED)
        if fewer:
            raise ValueError(f"by: {min(fewer)} cannot rank weights, as more of it is not better")
        if self.every < 0:
            raise ValueError(f"every must be 0 (never) or more, not {self.every}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be 1 or more, not {self.top_k}")
        if self.loss_samples < 0:
            raise ValueError(f"loss_samples must be 0 or more, not {self.loss_samples}")

    @property
    def ranked_by(self) -> tuple[str, ...]:
        return self.by or ("dsc",)

    def scores_of_one(self, predictor: Predictor, study: Study, task: str) -> dict[str, float]:
        """``dsc``, and what ranks weights, of one study; undefined scores are absent.

        Where neither side has a voxel, ``dsc`` is 1.
        """
        found = reference_of(study, task)
        labels = hard_labels(found)
        reference = labels > 0
        maps = predictor(study)
        mask = maps.probability > self.threshold
        scores = {"dsc": _dice(reference, mask)}
        if "soft_dsc" in self.ranked_by:
            soft: NDArray[Any] = found if np.issubdtype(found.dtype, np.floating) else reference
            scores["soft_dsc"] = _dice(soft, maps.probability)
        others = [name for name in self.ranked_by if name not in ("dsc", "soft_dsc")]
        if others:
            separate = self.to_instances or ConnectedComponents()
            case = evaluate_case(
                Instances(np.array(labels, dtype=np.int32), maps.grid),
                separate(maps, mask),
                Options(),
            )
            given = {name: case.values[name] for name in others}
            scores |= {name: float(value) for name, value in given.items() if value is not None}
        return scores

    def score(
        self, predictor: Predictor, validation: Sequence[Study], task: str = "lesions"
    ) -> dict[str, float]:
        """Each metric's mean over the studies where it is defined; without any it is absent."""
        if self.to_instances is None or self.top_k == 1:
            return {}
        values: dict[str, list[float]] = {name: [] for name in METRICS}
        for study in validation:
            maps = predictor(study)
            mask = maps.probability > self.threshold
            predicted = self.to_instances(maps, mask)
            labels = np.array(hard_labels(reference_of(study, task)), dtype=np.int32)
            reference = Instances(labels, maps.grid)
            for step in self.refine:
                predicted, reference = step(predicted), step(reference)
            scores = evaluate_case(reference, predicted, Options()).values
            for name, collected in values.items():
                value = scores[name]
                if value is not None:
                    collected.append(float(value))
        return {name: float(np.mean(v)) for name, v in values.items() if v}

    def best(self, scores: Sequence[Mapping[str, float]]) -> int:
        """Index of the best; ``scores`` come best first by ``by``, and the first of equals wins."""
        common = [name for name in METRICS if all(name in s for s in scores)]
        if not common:
            return 0
        ranks = [
            scipy.stats.rankdata([-METRICS[name] * s[name] for s in scores], method="average")
            for name in common
        ]
        return int(np.argmin(np.round(np.mean(ranks, axis=0), 9)))

    def reason(self, compared: int) -> str:
        """What decided, in words.

        Example:
            >>> Selection(by=("accuracy",)).reason(1)
            'highest validation accuracy'
        """
        by = " + ".join("Dice" if name == "dsc" else name for name in self.ranked_by)
        if self.to_instances is None or compared == 1:
            return f"highest validation {by}"
        return f"best mean rank over all metrics among the {compared} highest validation {by}"


def _dice(reference: NDArray[Any], predicted: NDArray[Any]) -> float:
    """2 Σ p r / (Σ p + Σ r); 1 where both are empty."""
    both = float(reference.sum(dtype=np.float64)) + float(predicted.sum(dtype=np.float64))
    if not both:
        return 1.0
    where = reference > 0
    shared = np.multiply(predicted[where], reference[where], dtype=np.float64)
    return 2 * float(shared.sum()) / both
