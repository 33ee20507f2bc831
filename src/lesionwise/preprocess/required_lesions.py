"""A training without lesions to learn from, refused before anything is learned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lesionwise.instances.reference import NO_LESION, reference_of
from lesionwise.types import InputError, RunContext, Study, TrainingData, Visit

MASKS = ("instances", "lesions")
"""Labels of a visit that say where its lesions are; the first that it has counts."""


@dataclass(frozen=True)
class Unchanged:
    """A step that returns the study itself."""

    def __call__(self, study: Study) -> Study:
        return study


@dataclass(frozen=True)
class RequireLesions:
    """Refuses a training in which one of several networks would have nothing to learn from.

    A recipe that trains networks in turn would notice it only when the turn comes to that network,
    maybe after days. Place this step before the first that learns. It learns nothing itself, and
    studies pass unchanged.

    Attributes:
        task: the reference in which some training study must have a lesion, such as "new".
        auxiliary: the set in whose visits lesion masks are looked for; where it is absent or empty,
            they are looked for in the training studies.
    """

    task: str
    auxiliary: str

    def __call__(self, study: Study) -> Study:
        """Refuse: the step has to be fitted or loaded first."""
        raise RuntimeError("RequireLesions looks at a training: call fit or load first")

    def fit(self, data: TrainingData, run: RunContext) -> Unchanged:
        """Look at the training studies; the step that it returns changes nothing.

        Raises:
            InputError: If no training study has a lesion of the task, or no visit one in its lesion
                mask.
        """
        if not any(reference_of(study, self.task).any() for study in data.training):
            raise InputError(NO_LESION)
        given = data.auxiliary.get(self.auxiliary, ())
        name = self.auxiliary
        known = False
        for visit in _visits(given if len(given) else data.training):
            masks = [visit.labels[key].array for key in MASKS if key in visit.labels]
            known = known or bool(masks)
            if masks and masks[0].any():
                return Unchanged()
        if len(given):
            lacks = "has a lesion" if known else "has a lesion mask to learn from"
            raise InputError(f"auxiliary set {name}: no visit {lacks}")
        lacks = "has a lesion in its mask" if known else "has a lesion mask to learn from"
        raise InputError(
            f"no visit {lacks}, and no auxiliary set {name} was given (--auxiliary {name}=DATA)"
        )

    def load(self, run: RunContext) -> Unchanged:
        """A step that changes nothing."""
        return Unchanged()


def _visits(studies: Iterable[Study]) -> Iterable[Visit]:
    for study in studies:
        yield from study.visits
