"""Maps of change as further scans of the visits.

A network sees the scans of every visit in time order, and every visit must have each. So a map of
the pair either goes with each visit (``AttentionMaps``), or lies on the last visit (``Subtract``),
which ``methods.cascade.LastVisitOnly`` then makes the only one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lesionwise.change.subtraction import attention_maps, subtraction
from lesionwise.preprocess.each_scan import check_finite, scan_name
from lesionwise.preprocess.pair import require_one_grid
from lesionwise.types import InputError, Study, Visit, Volume, with_last_scans


@dataclass(frozen=True)
class Subtract:
    """The last visit with one scan more: its ``scan`` minus the first visit's.

    Raises InputError for one visit only, a missing scan, and visits on different grids; so do the
    other steps of this module.

    Attributes:
        scan: what is subtracted.
        name: of the new scan.
    """

    scan: str = "flair"
    name: str = "subtraction"

    def __call__(self, study: Study) -> Study:
        first, last = _both(study, self.scan)
        difference = Volume(subtraction(first.array, last.array), last.grid)
        return with_last_scans(study, {self.name: difference})


@dataclass(frozen=True)
class AttentionMaps:
    """First and last visit with one scan more: what became brighter times the visit's own ``scan``.

    With scans ("flair", "attention") a network sees B, (F - B)+ B, F, (F - B)+ F. Of three visits
    or more, those between get none.
    """

    scan: str = "flair"
    name: str = "attention"

    def __call__(self, study: Study) -> Study:
        first, last = _both(study, self.scan)
        at_first, at_last = attention_maps(first.array, last.array)
        changed = replace(
            study.baseline, scans={**study.baseline.scans, self.name: Volume(at_first, first.grid)}
        )
        study = replace(study, visits=(changed, *study.visits[1:]))
        return with_last_scans(study, {self.name: Volume(at_last, last.grid)})


def _both(study: Study, key: str) -> tuple[Volume, Volume]:
    if len(study.visits) < 2:
        raise InputError(f"{study.subject}: only one visit, but this step compares visits")
    visits = (study.baseline, study.followup)
    names = [scan_name(study, visit, key) for visit in visits]
    volumes = [_scan(study, visit, key) for visit in visits]
    require_one_grid(names, volumes)
    for name, volume in zip(names, volumes, strict=True):
        check_finite(volume, name)
    return volumes[0], volumes[1]


def _scan(study: Study, visit: Visit, key: str) -> Volume:
    if key not in visit.scans:
        raise InputError(f"{scan_name(study, visit, key)}: missing, and this step needs it")
    return visit.scans[key]
