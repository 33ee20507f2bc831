"""Which lesions of a visit lie where findings are less certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lesionwise.preprocess.edges import edge_voxels
from lesionwise.report.views import VisitView


def with_edges(lesions: pd.DataFrame, visits: Sequence[VisitView]) -> pd.DataFrame:
    """The lesion table with ``edge`` for every lesion whose map and brain are known.

    True where half of a lesion or more lies in an edge slice or at the border of the brainstem
    (``preprocess.edges``). What the table says already stays: following looked at both visits.

    Args:
        lesions: with session, method and label.
        visits: whose maps and brains are looked at.
    """
    lesions = lesions.copy()
    known = lesions["edge"] if "edge" in lesions else pd.Series(None, index=lesions.index)
    known = known.astype(object).where(known.notna(), None)
    for visit in visits:
        here = (lesions["session"] == visit.session) & known.isna()
        if visit.brain is None or not here.any():
            continue
        for method, at_edge in _at_edge(visit).items():
            rows = here & (lesions["method"] == method)
            known[rows] = [at_edge.get(int(label)) for label in lesions.loc[rows, "label"]]
    return lesions.assign(edge=known)


def _at_edge(visit: VisitView) -> Mapping[str, Mapping[int, bool]]:
    """By method and label, whether half of a lesion or more lies at an edge."""
    assert visit.brain is not None
    grid = visit.image.grid
    edge = edge_voxels(grid, visit.brain, grid, np.eye(4))
    found: dict[str, Mapping[int, bool]] = {}
    for method, instances in visit.instances.items():
        inside = instances.labels > 0
        label = instances.labels[inside]
        total = np.bincount(label)
        there = np.bincount(label, weights=edge[inside], minlength=len(total))
        found[method] = {
            int(each): bool(2 * there[each] >= total[each]) for each in np.flatnonzero(total)
        }
    return found
