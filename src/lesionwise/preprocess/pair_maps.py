"""Maps of change as scans, and pairs reduced to their follow-up.

A network sees the scans of every visit in time order, and every visit must have each. So a map of
the pair either goes with each visit (attention maps), or lies on the follow-up and
``FollowupOnly`` makes that the only visit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lesionwise.change.subtraction import attention_maps, ratio, subtraction
from lesionwise.preprocess.each_scan import check_finite, scan_name
from lesionwise.preprocess.pair import require_one_grid
from lesionwise.types import InputError, Study, Visit, Volume


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
        return _with_last(study, self.name, Volume(subtraction(first.array, last.array), last.grid))


@dataclass(frozen=True)
class Ratio:
    """The last visit with one scan more: its ``scan`` over the first visit's.

    1 where either is not positive.
    """

    scan: str = "flair"
    name: str = "ratio"

    def __call__(self, study: Study) -> Study:
        first, last = _both(study, self.scan)
        return _with_last(study, self.name, Volume(ratio(first.array, last.array), last.grid))


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
        return _with_last(study, self.name, Volume(at_last, last.grid))


@dataclass(frozen=True)
class FollowupOnly:
    """The last visit as the only one, with the first visit's scans beside its own.

    They get their names after ``baseline_``, such as ``baseline_flair``, so a method can name every
    channel once. Changes stay. Results can then return to the follow-up's grid only.

    Raises InputError for one visit only, a missing scan, and visits on different grids.

    Attributes:
        scans: which of the first visit's scans come along; may be empty.
    """

    scans: tuple[str, ...] = ()

    def __call__(self, study: Study) -> Study:
        _refuse_single(study)
        first, last = study.baseline, study.followup
        own = list(last.scans)[:1]
        taken = {f"baseline_{key}": _scan(study, first, key) for key in self.scans}
        require_one_grid(
            [scan_name(study, last, key) for key in own]
            + [scan_name(study, first, key) for key in self.scans],
            [last.scans[key] for key in own] + list(taken.values()),
        )
        return replace(study, visits=(replace(last, scans={**last.scans, **taken}),))


def _refuse_single(study: Study) -> None:
    if len(study.visits) < 2:
        raise InputError(f"{study.subject}: only one visit, but this step compares visits")


def _both(study: Study, key: str) -> tuple[Volume, Volume]:
    _refuse_single(study)
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


def _with_last(study: Study, name: str, volume: Volume) -> Study:
    last = replace(study.followup, scans={**study.followup.scans, name: volume})
    return replace(study, visits=(*study.visits[:-1], last))
