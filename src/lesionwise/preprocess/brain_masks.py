"""Other ways to a brain mask than ``ExtractBrain``, and what is done with masks.

A step that finds masks leaves a visit alone that has one.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from skimage.filters import threshold_otsu

from lesionwise.io.nifti import read_mask, write_volume
from lesionwise.preprocess.bet import bet_mask
from lesionwise.preprocess.brain import (
    NoBrainFound,
    dilated,
    eroded,
    largest_filled,
    lay_head,
    mask_where_missing,
)
from lesionwise.preprocess.each_scan import check_finite
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.kept import kept
from lesionwise.preprocess.template import template_maps, template_matrix
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import BoolArray, InputError, Matrix, Study, Visit, Volume


@dataclass(frozen=True)
class TemplateMaskBrain:
    """Every visit with the MNI152 brain mask, brought to its scan by an affine registration.

    The mask has the template's shape: it does not follow the scan's border as ``ExtractBrain``
    does. Raises NoBrainFound.

    Departure: affine alone; atlas-based tools deform the atlas as well.
    """

    def __call__(self, study: Study) -> Study:
        def find(scan: Volume, name: str) -> Volume:
            if not np.ptp(scan.array) > 0:
                raise NoBrainFound(f"{name}: no brain found (every voxel has the same value)")
            small = resample_to(scan, respaced(scan.grid, 2.0), order=1)
            brain = template_maps().brain
            rough = _inverse(lay_head(small, name))
            within = resample_to(brain, small.grid, order=0, world=rough)
            fine = _inverse(template_matrix(small, within, name=name))
            return resample_to(brain, scan.grid, order=0, world=fine)

        return mask_where_missing(study, find)


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


@dataclass(frozen=True)
class OtsuBrain:
    """Every visit with a rough brain mask by Otsu's threshold and morphology.

    What is above Otsu's threshold in the scan of every visit is eroded, so that skin and fat
    come off, the largest connected region is kept, dilated by as much and filled. Visits must
    lie in one space already (``RegisterToFirst`` or the like). Cortex may be missing, as the
    source says. Raises NoBrainFound where nothing is left.

    Attributes:
        radius_mm: of the erosion and the dilation (not stated in the source).
    """

    radius_mm: float = 5.0

    def __call__(self, study: Study) -> Study:
        if all(visit.brain is not None for visit in study.visits):
            return study
        bright = mask_where_missing(_without_brains(study), lambda scan, _: _above_otsu(scan))

        def in_all(scan: Volume) -> BoolArray:
            inside = np.ones(scan.grid.shape, dtype=bool)
            for visit in bright.visits:
                if visit.brain is not None:
                    inside &= resample_to(visit.brain, scan.grid, order=0).array
            return inside

        def find(scan: Volume, name: str) -> Volume:
            inner = eroded(in_all(scan), self.radius_mm, scan.grid)
            if not inner.any():
                raise NoBrainFound(f"{name}: no brain found (nothing bright is thick enough)")
            # filled before and after: holes of the first kind must not grow into the border
            brain = dilated(largest_filled(inner), self.radius_mm, scan.grid)
            return Volume(largest_filled(brain), scan.grid)

        return mask_where_missing(study, find)


def _without_brains(study: Study) -> Study:
    return replace(study, visits=tuple(replace(visit, brain=None) for visit in study.visits))


def _above_otsu(scan: Volume) -> Volume:
    if not np.ptp(scan.array) > 0:
        return Volume(np.zeros(scan.grid.shape, dtype=bool), scan.grid)
    return Volume(np.asarray(scan.array > threshold_otsu(scan.array)), scan.grid)


@dataclass(frozen=True)
class BetBrain:
    """Every visit with a brain mask by BET, as this project computes it (``bet.bet_mask``).

    A surface expands from the middle of the head until it meets the brain's border, on a
    copy with voxels of ``working_mm``. Raises NoBrainFound where less than 0.1 l is found.

    Attributes:
        fraction: BET's fractional intensity threshold; smaller values give larger brains.

    Source: Smith 2002.
    """

    fraction: float = 0.5
    working_mm: float = 2.0

    def __call__(self, study: Study) -> Study:
        def find(scan: Volume, name: str) -> Volume:
            check_finite(scan, name)
            small = resample_to(scan, respaced(scan.grid, self.working_mm), order=1)
            (brain,) = kept(
                "bet",
                (small, self.fraction, scan.grid),
                lambda: (bet_mask(small, self.fraction, on=scan.grid),),
            )
            liters = brain.sum() * scan.grid.voxel_volume_mm3 * 1e-6
            if liters < 0.1:
                raise NoBrainFound(f"{name}: no brain found ({liters:.2f} l by BET)")
            return Volume(brain, scan.grid)

        return mask_where_missing(study, find)


@dataclass(frozen=True)
class ExternalBrain:
    """Every visit with a brain mask by another program's command line.

    The scan is written as NIfTI, the command run without a shell, and the mask read back: what
    is not zero is brain. Nothing is downloaded by lesionwise; whether the program fetches
    weights depends on the program.

    Attributes:
        command: with ``{scan}`` for the scan's path, ``{mask}`` for the path where the mask must
            appear, and ``{stem}`` for that path without ``.nii.gz``. For example
            ``mri_synthstrip -i {scan} -m {mask}`` or
            ``hd-bet -i {scan} -o {stem}.nii.gz --save_bet_mask --no_bet_image`` with
            ``mask_name="mask_bet.nii.gz"``.
        mask_name: name of the file the program leaves, where it chooses one itself.
        limit_seconds: a run that takes longer is stopped and refused.

    Raises InputError, with the last line the program wrote, where it is missing or fails, leaves no
    mask, or leaves an empty one or one that does not lie on the scan.
    """

    command: str
    mask_name: str = "mask.nii.gz"
    limit_seconds: float = 1800

    def __call__(self, study: Study) -> Study:
        def find(scan: Volume, name: str) -> Volume:
            with tempfile.TemporaryDirectory() as folder:
                written = Path(folder, "scan.nii.gz")
                mask = Path(folder, self.mask_name)
                write_volume(written, scan)
                self._run(written, mask, name)
                if not mask.is_file():
                    raise InputError(f"{name}: {self._program()} left no {self.mask_name}")
                found = read_mask(mask)
            brain = resample_to(found, scan.grid, order=0).array.astype(bool)
            if not brain.any():
                raise InputError(
                    f"{name}: the mask of {self._program()} is empty or on other voxels"
                )
            return Volume(brain, scan.grid)

        # the program may take all cores and much memory for one scan
        return mask_where_missing(study, find, threads=1)

    def _program(self) -> str:
        return shlex.split(self.command)[0]

    def _run(self, scan: Path, mask: Path, name: str) -> None:
        stem = str(mask).removesuffix(".nii.gz")
        words = [
            word.replace("{scan}", str(scan)).replace("{mask}", str(mask)).replace("{stem}", stem)
            for word in shlex.split(self.command)
        ]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,  # of the caller's, nothing is for the program
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=self.limit_seconds,
            )
        except FileNotFoundError as error:
            raise InputError(f"{name}: the program {words[0]} is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise InputError(
                f"{name}: {words[0]} took longer than {self.limit_seconds:g} s"
            ) from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise InputError(f"{name}: {words[0]} failed ({said})")


@dataclass(frozen=True)
class SharedBrain:
    """Every visit with one brain mask, made of the masks of all visits.

    Visits must lie in one space already. Each visit keeps its own grid; the others' masks are
    brought there by nearest neighbor.

    Attributes:
        of: the union or the intersection of all masks, or that of the first or last visit.

    Raises InputError where a mask that counts is missing, or where nothing is left.

    The challenge's common preprocessing takes the union, then ``MaskToBrain``.
    """

    of: Literal["union", "intersection", "first", "last"] = "union"

    def __call__(self, study: Study) -> Study:
        counted = {"first": study.visits[:1], "last": study.visits[-1:]}.get(self.of, study.visits)
        masks = [_brain(study, visit) for visit in counted]
        joined = np.logical_and if self.of == "intersection" else np.logical_or

        def shared(visit: Visit) -> Visit:
            grid = (visit.brain or next(iter(visit.scans.values()))).grid
            laid = [resample_to(mask, grid, order=0).array.astype(bool) for mask in masks]
            brain = joined.reduce(laid)
            if not brain.any():
                raise InputError(f"{_name(study, visit)}: the {self.of} of brain masks is empty")
            return replace(visit, brain=Volume(brain, grid))

        return replace(study, visits=tuple(shared(visit) for visit in study.visits))


@dataclass(frozen=True)
class MaskToBrain:
    """Every scan with ``outside`` in all voxels outside its visit's brain mask.

    Labels and changes are left alone. Raises InputError where a visit has no mask.
    """

    outside: float = 0.0

    def __call__(self, study: Study) -> Study:
        def masked(visit: Visit) -> Visit:
            brain = _brain(study, visit)

            def cut(volume: Volume) -> Volume:
                inside = resample_to(brain, volume.grid, order=0).array.astype(bool)
                fill = np.asarray(self.outside, dtype=volume.array.dtype)
                return Volume(np.where(inside, volume.array, fill), volume.grid)

            return replace(visit, scans={name: cut(v) for name, v in visit.scans.items()})

        return each_visit(study, masked)


def _brain(study: Study, visit: Visit) -> Volume:
    if visit.brain is None:
        raise InputError(f"{_name(study, visit)}: no brain mask")
    return visit.brain


def _name(study: Study, visit: Visit) -> str:
    return f"{study.subject} {visit.session}".strip()
