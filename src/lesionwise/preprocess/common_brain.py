"""One brain mask for all visits of a patient."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import InputError, Study, Visit


@dataclass(frozen=True)
class BaselineBrain:
    """Every visit with the brain mask of the first one, which it must be registered to.

    Raises InputError where the first visit has no brain mask.

    Used by B2 (002, line 217), which crops all scans with the first one as a mask.
    """

    def __call__(self, study: Study) -> Study:
        brain = study.baseline.brain
        if brain is None:
            raise InputError(f"sub-{study.subject}: no brain mask at the first visit")

        def with_brain(visit: Visit) -> Visit:
            grid = next(iter(visit.scans.values())).grid
            same = grid.matches(brain.grid)
            return replace(visit, brain=brain if same else resample_to(brain, grid, order=0))

        later = tuple(with_brain(visit) for visit in study.visits[1:])
        return replace(study, visits=(study.baseline, *later))
