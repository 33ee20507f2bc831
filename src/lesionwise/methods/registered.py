"""A learned step that warps the first visit onto the last and shows what does not correspond."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.learning.registration import FIELD_MAPS
from lesionwise.methods.members import fit_once
from lesionwise.networks.warp import warp
from lesionwise.types import (
    Method,
    Predictor,
    RunContext,
    Step,
    Study,
    TrainingData,
    Volume,
    scan_of_both,
    with_last_scans,
)


@dataclass(frozen=True)
class AddRegistered:
    """A learned step: the last visit gets the non-correspondence map and the registered difference.

    The method learns from the training studies without their labels, so neither does it choose
    weights by validation. Its maps are the probability of non-correspondence and the field in
    voxels (``learning.registration``). Where that probability exceeds ``threshold`` the field is
    set to 0, so that new lesions are not bent away; then the first visit is warped, and
    subtracted from the last.

    Attributes:
        method: what makes map and field.
        scan: that is warped and subtracted.
        map_name, difference_name: of the scans that the last visit gets.
        threshold: of the final non-correspondence.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `ncr-net`.
    """

    method: Method
    scan: str = "flair"
    map_name: str = "non_correspondence"
    difference_name: str = "registered_difference"
    threshold: float = 0.5

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def __call__(self, study: Study) -> Study:
        """Refuse: the step has to be fitted or loaded first."""
        raise RuntimeError(f"AddRegistered({self.map_name}) was not fitted")

    def fit(self, data: TrainingData, run: RunContext) -> Step:
        """Learn, and return the step that appends the maps."""
        fit_once(self.method, replace(data, validation=()), run)
        return self.load(run)

    def load(self, run: RunContext) -> Step:
        """The step that ``fit`` returned."""
        return FittedAddRegistered(self, self.method.load(run))


@dataclass(frozen=True, eq=False)
class FittedAddRegistered:
    """``AddRegistered``, fitted."""

    step: AddRegistered
    predictor: Predictor

    def __call__(self, study: Study) -> Study:
        """The study with two more scans in its last visit.

        Raises:
            InputError: If a visit lacks the scan, or the two do not lie on one grid.
        """
        first, last = scan_of_both(study, self.step.scan)
        maps = self.predictor(study)
        field = np.stack([maps.extra[name] for name in FIELD_MAPS])
        field = np.where(maps.probability > self.step.threshold, np.float32(0), field)
        difference = np.asarray(last.array, np.float32) - warped(first.array, field)
        added = {self.step.map_name: maps.probability, self.step.difference_name: difference}
        return with_last_scans(study, {k: Volume(v, last.grid) for k, v in added.items()})


def warped(image: NDArray[np.generic], field_vox: NDArray[np.generic]) -> NDArray[np.float32]:
    """``warp`` for arrays: (I, J, K) by (3, I, J, K)."""
    with torch.no_grad():
        moved = warp(
            torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None],
            torch.from_numpy(np.ascontiguousarray(field_vox, np.float32))[None],
        )
    found: NDArray[np.float32] = moved[0, 0].numpy()
    return found
