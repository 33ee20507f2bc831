"""Heads, with their skull, laid rigidly onto the MNI152 template."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lesionwise.preprocess.brain import head_template, lay_head
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.registration import register, register_visits, shared_scan
from lesionwise.preprocess.template import move_to_template, nearest_rigid
from lesionwise.types import InputError, Matrix, Study, Volume

LEVELS_MM = (8.0, 4.0)


@dataclass(frozen=True)
class RegisterHeadToTemplate:
    """Every visit in the space of the MNI152 template, on its grid of 1 mm, skull and all.

    The first visit's head is registered to the template by a rigid registration of 6 parameters
    (``rigid_head_matrix``), the others onto the first visit's head (``register_visits``), and each
    is interpolated once, through both: so visits stay aligned with each other better than each
    with the template. No brain mask plays a part, also where a visit has one: the skull does not
    change between visits. The scan that all visits share is used, FLAIR first. Scans are linear,
    labels, brains and changes go by nearest neighbor. Sizes stay: a head smaller than the
    template's stays smaller.

    Raises InputError where a scan shows no head or the visits do not fit.

    Source: Martínez-Heras et al., sections 2.2 and 4.
    """

    def __call__(self, study: Study) -> Study:
        heads = replace(study, visits=tuple(replace(visit, brain=None) for visit in study.visits))
        among = register_visits(heads)
        scan = shared_scan(study)
        first = study.visits[0]
        name = " ".join(part for part in (study.subject, first.session, scan) if part)
        to_first = rigid_head_matrix(first.scans[scan], name=name)
        return move_to_template(study, tuple(each @ to_first for each in among))


def rigid_head_matrix(scan: Volume, *, name: str = "scan") -> Matrix:
    """World matrix, template (MNI) mm to scan mm, of a rigid registration of whole heads.

    Mattes mutual information at 8 and 4 mm between the scan and the template's head
    (``head_template``), over 6 parameters: three turns and three shifts. It starts from the turn
    nearest to an affine registration of the same heads, since a rigid search from far off can
    settle with a smaller head in a corner of the template.

    Args:
        scan: any contrast and spacing, with or without skull.
        name: of the scan, for messages.

    Raises:
        InputError: where nothing in the scan resembles a head.

    Deterministic.

    Example:
        >>> matrix = rigid_head_matrix(read_volume("flair.nii.gz"))  # doctest: +SKIP
        >>> round(float(np.linalg.det(matrix[:3, :3])), 6)  # sizes stay  # doctest: +SKIP
        1.0
    """
    small = resample_to(scan, respaced(scan.grid, LEVELS_MM[-1] / 2), order=1)
    head, brain, compared = head_template()
    center = head.grid.world_mm(np.argwhere(brain.array > 0.5).mean(axis=0)[None])[0]
    start = nearest_rigid(lay_head(small, name), center)
    try:
        matrix, _ = register(head, small, compared, None, (start,), LEVELS_MM, "rigid")
    except InputError as error:
        raise InputError(f"{name}: it cannot be registered to the template ({error})") from error
    return matrix
