"""Scans that some visits do not have, as empty ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lesionwise.preprocess.each_scan import scan_name
from lesionwise.preprocess.pair import require_one_grid
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import InputError, Study, Visit, Volume


@dataclass(frozen=True)
class FillMissingScans:
    """Every visit with all of some scans; those that it lacks are 0 everywhere.

    For networks that learned to do without some of their channels. Empty scans lie on the grid of
    ``like``. Raises InputError where a visit lacks that one, or where the scans do not lie on one
    grid.

    Attributes:
        scans: that every visit has afterwards.
        like: the scan that every visit has before.
    """

    scans: tuple[str, ...]
    like: str = "flair"

    def __call__(self, study: Study) -> Study:
        def filled(visit: Visit) -> Visit:
            if self.like not in visit.scans:
                raise InputError(f"{scan_name(study, visit, self.like)}: missing")
            grid = visit.scans[self.like].grid
            present = [key for key in self.scans if key in visit.scans]
            require_one_grid(
                [scan_name(study, visit, key) for key in (self.like, *present)],
                [visit.scans[key] for key in (self.like, *present)],
            )
            empty = Volume(np.zeros(grid.shape, dtype=np.float32), grid)
            added = {key: empty for key in self.scans if key not in visit.scans}
            return replace(visit, scans={**visit.scans, **added})

        return each_visit(study, filled)
