"""A method that learns from patients with something to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lesionwise.learning.dataset import reference_of
from lesionwise.methods.parts import chosen
from lesionwise.types import (
    Finds,
    InputError,
    LazyStudies,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
)


@dataclass(frozen=True)
class PositiveCases:
    """A method that is shown no study in which there is nothing to find.

    Validation studies are left as they are.

    Attributes:
        method: what learns.
        finds: what has to be there.

    Used by B20.
    """

    method: Method
    finds: Finds = "new"

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit the method on the positive studies.

        Raises:
            InputError: If there are none.
        """
        training = self._positive(data.training)
        if not len(training):
            raise InputError("no training study has a lesion to learn from")
        self.method.fit(replace(data, training=training), run)

    def load(self, run: RunContext) -> Predictor:
        """The method."""
        return self.method.load(run)

    def _positive(self, studies: Sequence[Study]) -> LazyStudies:
        found = [n for n, study in enumerate(studies) if reference_of(study, self.finds).any()]
        return chosen(studies, found)
