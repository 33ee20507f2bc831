"""Structures of the template as labels of scans that lie in its space."""

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
    every patient, by nearest neighbor on the grid of the visit's first scan.
    """

    def __call__(self, study: Study) -> Study:
        return _labeled(study, "ventricles", template_maps().ventricles)


@dataclass(frozen=True)
class LabelTemplateBrain:
    """The template's brain as label ``template_brain`` of every visit, bool.

    World mm have to be MNI mm: take it after ``RegisterToTemplate``. It is the same mask for every
    patient, by nearest neighbor on the grid of the visit's first scan; the patient's own brain is
    ``Visit.brain``.
    """

    def __call__(self, study: Study) -> Study:
        return _labeled(study, "template_brain", template_maps().brain)


def _labeled(study: Study, name: str, mask: Volume) -> Study:
    def labeled(visit: Visit) -> Visit:
        grid = next(iter(visit.scans.values())).grid
        here = resample_to(mask, grid, order=0).array > 0
        return replace(visit, labels={**visit.labels, name: Volume(here, grid)})

    return each_visit(study, labeled)
