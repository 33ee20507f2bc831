"""Prepared studies as plain arrays on disk, and the patches cut from them.

A prepared study is a folder of ``.npy`` files with a ``study.json``: reading one needs NumPy
alone, so that a machine with nothing but torch, Lightning and SciPy can train.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lesionwise.learning.intensity_transforms import IntensityTransform, LesionContrast
from lesionwise.learning.normalization import WholeVolume
from lesionwise.learning.samplers import Sampling
from lesionwise.learning.spatial_transforms import (
    SpatialAugmentation,
    SpatialTransform,
    crop,
    resample_patch,
)
from lesionwise.learning.targets import Targets, centers_of_mass, instances_of
from lesionwise.types import (
    UNMOVED,
    BoolArray,
    Finds,
    Grid,
    InputError,
    LabelArray,
    Study,
    Visit,
    Volume,
)

LARGEST_FLOAT16 = 65504.0


def write_prepared(study: Study, folder: Path) -> None:
    """Keep a study as arrays in ``folder``: scans as float16 (float32 where values exceed its
    range), masks as bool, labels as the smallest unsigned integers that hold them.

    The folder appears complete or not at all.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    visits = []
    for number, visit in enumerate(study.visits):
        volumes = {f"scan-{name}": v for name, v in visit.scans.items()}
        volumes |= {f"label-{name}": v for name, v in visit.labels.items()}
        if visit.brain is not None:
            volumes["brain"] = visit.brain
        grids = {}
        for name, volume in volumes.items():
            np.save(
                partial / f"visit-{number}_{name}.npy", volume.array.astype(_kept_as(name, volume))
            )
            grids[name] = volume.grid.affine.tolist()
        described = {"session": visit.session, "affines": grids, "as_read": visit.as_read.tolist()}
        visits.append(described)
    changes = {}
    for name, volume in study.changes.items():
        np.save(partial / f"change-{name}.npy", volume.array.astype(_kept_as(name, volume)))
        changes[name] = volume.grid.affine.tolist()
    description = {"subject": study.subject, "visits": visits, "changes": changes}
    (partial / "study.json").write_text(json.dumps(description), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _kept_as(name: str, volume: Volume) -> np.dtype[Any]:
    if name.startswith("scan-"):
        largest = max(volume.array.max(initial=0), -volume.array.min(initial=0))
        return np.dtype(np.float16 if largest <= LARGEST_FLOAT16 else np.float32)
    if name == "brain" or volume.array.dtype == bool:
        return np.dtype(bool)
    return np.min_scalar_type(int(volume.array.max(initial=0)))


def read_prepared(folder: Path) -> Study:
    """The study kept in ``folder``; its arrays are mapped from their files, not loaded.

    Raises:
        InputError: If the folder holds no prepared study, or an incomplete one.
    """
    try:
        description = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        visits = []
        for number, described in enumerate(description["visits"]):
            volumes = {
                name: _mapped(folder / f"visit-{number}_{name}.npy", affine)
                for name, affine in described["affines"].items()
            }
            visits.append(
                Visit(
                    scans=_named(volumes, "scan-"),
                    labels=_named(volumes, "label-"),
                    brain=volumes.get("brain"),
                    session=described["session"],
                    as_read=np.asarray(described.get("as_read", UNMOVED)),
                )
            )
        changes = {
            name: _mapped(folder / f"change-{name}.npy", affine)
            for name, affine in description.get("changes", {}).items()
        }
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: not a prepared study ({error})") from error
    return Study(subject=description["subject"], visits=tuple(visits), changes=changes)


def _mapped(path: Path, affine: list[list[float]]) -> Volume:
    array = np.load(path, mmap_mode="r")
    return Volume(array, Grid(array.shape, np.asarray(affine)))


def _named(volumes: dict[str, Volume], prefix: str) -> dict[str, Volume]:
    return {k.removeprefix(prefix): v for k, v in volumes.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class PreparedStudies(Sequence[Study]):
    """Prepared studies, each read when it is asked for."""

    folders: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.folders)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> PreparedStudies: ...
    def __getitem__(self, index: int | slice) -> Study | PreparedStudies:
        if isinstance(index, slice):
            return PreparedStudies(self.folders[index])
        return read_prepared(self.folders[index])


def reference_of(study: Study, finds: Finds) -> LabelArray:
    """What is to be found in a study: labels on the grid of its last visit, 0 = background.

    New lesions that nobody told apart are components.

    Raises:
        InputError: If the study does not say.
    """
    if finds == "lesions":
        return instances_of_visit(study.followup)
    if "new" not in study.changes:
        raise InputError(f"sub-{study.subject}: no map of new lesions to learn from")
    new = study.changes["new"].array
    return new if new.max(initial=0) > 1 else instances_of(new)


def instances_of_visit(visit: Visit) -> LabelArray:
    """The visit's instance map; without one the components of its lesion mask.

    Raises:
        InputError: If the visit has neither.
    """
    if "instances" in visit.labels:
        return visit.labels["instances"].array
    if "lesions" in visit.labels:
        return instances_of(visit.labels["lesions"].array)
    raise InputError(f"visit {visit.session or 'of unknown session'}: no lesion mask to learn from")


class Case:
    """One study as a network's training sees it: channels, instances, lesion centers."""

    def __init__(self, study: Study, scans: tuple[str, ...], finds: Finds = "lesions") -> None:
        self.images = channels(study, scans)
        self._study = study
        self._finds: Finds = finds
        self.spacing_mm = study.followup.scans[scans[0]].grid.spacing_mm
        self.shape: tuple[int, ...] = self.images[0].shape

    @property
    def brain(self) -> BoolArray | None:
        brain = self._study.followup.brain
        return None if brain is None else brain.array

    @cached_property
    def instances(self) -> LabelArray:
        return reference_of(self._study, self._finds)

    @cached_property
    def centers_vox(self) -> NDArray[np.float64]:
        return centers_of_mass(self.instances)[1]


@dataclass(frozen=True, eq=False)
class View:
    """A case seen with its axes in another order, or augmented as a whole."""

    images: Sequence[NDArray[Any]]
    instances: LabelArray
    centers_vox: NDArray[np.float64]
    brain: BoolArray | None
    spacing_mm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images[0].shape


def in_order(case: Case, order: tuple[int, int, int]) -> Case | View:
    """The case with its axes in that order; its arrays are shared, not copied."""
    if order == (0, 1, 2):
        return case
    i, j, k = (case.spacing_mm[axis] for axis in order)
    return View(
        [image.transpose(order) for image in case.images],
        case.instances.transpose(order),
        case.centers_vox[:, list(order)],
        None if case.brain is None else case.brain.transpose(order),
        (i, j, k),
    )


def channels(study: Study, scans: tuple[str, ...]) -> list[NDArray[Any]]:
    """The scans of every visit in time order, each visit's in the order of ``scans``.

    Raises:
        InputError: If a visit lacks a scan.
    """
    arrays = []
    for visit in study.visits:
        for name in scans:
            if name not in visit.scans:
                raise InputError(f"sub-{study.subject}: no {name} scan")
            arrays.append(visit.scans[name].array)
    return arrays


def channel_names(scans: tuple[str, ...], visits: int) -> tuple[str, ...]:
    """A name for each channel, "flair@followup": the scan, then the visit.

    The last visit is the follow-up; the first of several is the baseline, and others between
    have their number.
    """
    names = ["baseline", *(str(n + 1) for n in range(1, visits - 1)), "followup"][-visits:]
    return tuple(f"{scan}@{visit}" for visit in names for scan in scans)


class PatchDataset(Dataset[dict[str, torch.Tensor]]):
    """Numbered random patches: patch n is the same whenever and wherever it is asked for.

    Each is a dict of tensors: ``image`` (C, I, J, K) float32 and the targets by name.

    Args:
        studies: prepared; every study is equally likely.
        scans: channel order.
        targets: makes the reference arrays from the instances in view.
        patch_size_vox: along i, j, k.
        sampling: where patches lie.
        spatial, intensity: augmentation; None leaves it out.
        seed: of all random choices.
        lesion_contrast: how lesions are dimmed, before intensity effects.
        finds: what is to be learned.
        whole: augment and normalize the volume before the patch is cut.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        scans: tuple[str, ...],
        targets: Targets,
        patch_size_vox: tuple[int, int, int],
        sampling: Sampling,
        spatial: SpatialAugmentation | None,
        intensity: IntensityTransform | None,
        seed: int,
        lesion_contrast: LesionContrast = LesionContrast(),  # noqa: B008  (frozen)
        finds: Finds = "lesions",
        whole: WholeVolume | None = None,
    ) -> None:
        if not len(studies):
            raise InputError("no study to learn from")
        self.studies, self.scans, self.finds = studies, scans, finds
        self.cases = [Case(study, scans, finds) for study in studies]
        self.channels = channel_names(scans, len(studies[0].visits))
        self.targets = targets
        self.patch_size_vox = patch_size_vox
        self.sampling = sampling
        self.spatial = spatial
        self.intensity = intensity
        self.lesion_contrast = lesion_contrast
        self.seed = seed
        self.whole = whole

    def __getstate__(self) -> dict[str, Any]:
        """Without the arrays: another process maps its own from the files."""
        return {name: value for name, value in vars(self).items() if name != "cases"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.cases = [Case(study, self.scans, self.finds) for study in self.studies]

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        chosen = self.cases[rng.integers(len(self.cases))]
        order = (0, 1, 2) if self.spatial is None else self.spatial.axis_permutation(rng)
        case = in_order(chosen, order)
        if self.whole is None:
            image, instances = self._patch(case, rng)
        else:
            image, instances = self._patch_of_whole(case, self.whole, rng)
        made = self.targets.make(instances, case.spacing_mm)
        return {
            "image": torch.from_numpy(image),
            **{name: torch.from_numpy(array) for name, array in made.items()},
        }

    def _patch(
        self, case: Case | View, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        start = self.sampling.start(case, self.patch_size_vox, rng)
        transform = SpatialTransform.identity()
        if self.spatial is not None:
            transform = self.spatial.draw(self.patch_size_vox, case.spacing_mm, rng)
        image, maps = resample_patch(
            case.images, {"instances": case.instances}, start, self.patch_size_vox, transform
        )
        return self._other_intensities(image, maps["instances"], rng), maps["instances"]

    def _patch_of_whole(
        self, case: Case | View, whole: WholeVolume, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        i, j, k = case.shape
        transform = SpatialTransform.identity()
        if self.spatial is not None:
            transform = self.spatial.draw((i, j, k), case.spacing_mm, rng)
        brain = np.ones(case.shape, bool) if case.brain is None else case.brain
        beside = {"instances": case.instances, "brain": brain.astype(np.float32)}
        image, maps = resample_patch(case.images, beside, (0, 0, 0), (i, j, k), transform)
        instances = maps["instances"]
        image = self._other_intensities(image, instances, rng)
        image = np.stack([whole.normalize(channel) for channel in image])
        centers = centers_of_mass(instances)[1]
        moved = View(list(image), instances, centers, maps["brain"] > 0.5, case.spacing_mm)
        start = self.sampling.start(moved, self.patch_size_vox, rng)
        cut = np.stack([crop(channel, start, self.patch_size_vox) for channel in image])
        return cut, np.ascontiguousarray(crop(instances, start, self.patch_size_vox))

    def _other_intensities(
        self, image: NDArray[np.float32], instances: NDArray[np.int32], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        image = self.lesion_contrast(image, instances > 0, rng)
        return image if self.intensity is None else self.intensity(image, self.channels, rng)
