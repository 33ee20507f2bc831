"""Where the template says the ventricles are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.template import template_maps
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import Study, Visit, Volume


@dataclass(frozen=True)
class LabelVentricles:
    """The template's lateral ventricles as label ``ventricles`` of every visit, bool.

    World mm have to be MNI mm: take it after ``RegisterToTemplate``. It is the same mask for
    every patient, by nearest neighbor on the visit's grid.

    Used by B1.
    """

    def __call__(self, study: Study) -> Study:
        ventricles = template_maps().ventricles

        def labeled(visit: Visit) -> Visit:
            grid = next(iter(visit.scans.values())).grid
            found = resample_to(ventricles, grid, order=0).array > 0
            return replace(visit, labels={**visit.labels, "ventricles": Volume(found, grid)})

        return each_visit(study, labeled)
