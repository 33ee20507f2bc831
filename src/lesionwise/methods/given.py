"""Lesions that another tool or a person found already, as a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lesionwise.io.nifti import read_map
from lesionwise.io.space import on_grid
from lesionwise.types import LesionMaps, Method, Predictor, RunContext, Study, TrainingData, Volume


@dataclass(frozen=True)
class GivenLesions:
    """A mask or probability map in a file, on the voxels of the scan.

    Attributes:
        path: NIfTI; a mask (0 and one other value) or a probability in [0, 1].
        scan: whose grid it lies on.
    """

    path: Path
    scan: str = "flair"

    uses_validation = False
    """Nothing is chosen by validation studies."""

    def members(self) -> tuple[Method, ...]:
        """None."""
        return ()

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Learn nothing."""

    def load(self, run: RunContext) -> Predictor:
        """The map, for a study whose scan lies on its voxels; no interpolation.

        Raises:
            InputError: If the file cannot be read; the predictor raises it where the map's voxels
                are not those of the scan.
        """
        return self.predict

    def predict(self, study: Study) -> LesionMaps:
        """The map in the axis order of the scan; 1 inside of a mask and 0 outside."""
        grid = study.followup.scans[self.scan].grid
        volume, _ = read_map(self.path)
        moved = on_grid(volume, grid, name=str(self.path))
        return LesionMaps(np.ascontiguousarray(moved.array, dtype=np.float32), grid)


@dataclass(frozen=True)
class JoinToBrain:
    """A step: what is given as lesion counts as brain, so that no brain mask takes it away.

    Attributes:
        given: the lesions.
        threshold: lesion is probability > threshold.
    """

    given: GivenLesions
    threshold: float = 0.5

    def __call__(self, study: Study) -> Study:
        visit = study.followup
        maps = self.given.predict(study)
        lesions = maps.probability > self.threshold
        if visit.brain is None:
            return study
        brain = on_grid(visit.brain, maps.grid, name="brain")
        joined = Volume((brain.array != 0) | lesions, maps.grid)
        return Study(study.subject, (*study.visits[:-1], replace(visit, brain=joined)))
