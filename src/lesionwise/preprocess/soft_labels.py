"""Labels as fractions, so that resampling keeps what lies at a lesion's border."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lesionwise.types import Study, Volume


@dataclass(frozen=True)
class SoftLabels:
    """Maps of what changed as fractions of 0 and 1, float32.

    Steps that resample interpolate fractions linearly, so that a voxel at a lesion's border holds
    the share of the lesion in it. A study without such a map passes unchanged.

    Attributes:
        names: of changes.

    Source: Gros and others, SoftSeg (2021), doi:10.1016/j.media.2021.102038.
    """

    names: tuple[str, ...] = ("new",)

    def __call__(self, study: Study) -> Study:
        def soft(volume: Volume) -> Volume:
            if np.issubdtype(volume.array.dtype, np.floating):
                return volume
            return Volume((volume.array > 0).astype(np.float32), volume.grid)

        changes = {
            name: soft(volume) if name in self.names else volume
            for name, volume in study.changes.items()
        }
        return replace(study, changes=changes)
