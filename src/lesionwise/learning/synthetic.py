"""Pairs of visits made from single scans: lesions painted over, lesions painted in.

Two networks are trained first. The *inpainter* learns to fill regions of noise in patches without
lesions, so it turns a lesion into healthy tissue. The *generator* learns to fill regions of noise
that are marked as lesions, so it turns tissue into a lesion. ``SyntheticPairs`` then says, for one
patch of one scan, which lesions are taken out of which visit and where others are put in;
``OnSyntheticPairs`` lets the two networks paint, and hands the pair to a supervised objective.

Source: Proceedings of MSSEG-2, 2021, the chapter of `synthetic-new-lesions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cc3d
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from lesionwise.instances.reference import reference_of
from lesionwise.learning.channels import channel_names
from lesionwise.learning.objective import Supervised
from lesionwise.learning.samplers import LabeledVolume, PatchSampling, Sampling
from lesionwise.learning.samples import (
    Augmentation,
    Reading,
    Sample,
    SampleRequest,
    Tensors,
    TrainingVolume,
    TrainingVolumes,
    TransformedVolume,
    cut,
    studies_of,
    tensors,
    transposed,
)
from lesionwise.learning.spatial_transforms import crop
from lesionwise.learning.targets import Targets
from lesionwise.types import (
    EMPTY,
    Auxiliary,
    BoolArray,
    FloatArray,
    InputError,
    Shape,
    Study,
    TrainingData,
)

VISITS = ("baseline", "followup")
FACES = ndimage.generate_binary_structure(3, 1)
BOTH, FIRST, SECOND, NEITHER = range(4)
"""In which of the two visits a lesion is seen."""


# --- where patches lie -----------------------------------------------------------------------


@dataclass(frozen=True)
class AwayFromLesions:
    """Patches in which no lesion lies, with their middle in the brain.

    Attributes:
        tries: places that are drawn; the first without a lesion is taken. Where none is, the one
            with the fewest lesion voxels.
    """

    tries: int = 30

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch."""
        least: int | None = None
        best = (0, 0, 0)
        for _ in range(self.tries):
            start = PatchSampling().start(volume, patch_size_vox, rng)
            middle = [f + s // 2 for f, s in zip(start, patch_size_vox, strict=True)]
            inside = volume.brain is None or bool(volume.brain[tuple(middle)])
            lesions = int((crop(volume.instances, start, patch_size_vox) > 0).sum())
            lesions += 0 if inside else int(np.prod(patch_size_vox))
            if least is None or lesions < least:
                least, best = lesions, start
            if not lesions:
                break
        return best


# --- what the two networks learn first -------------------------------------------------------


@dataclass(frozen=True)
class PatchesToFill:
    """Patches of single scans with regions of noise, for networks that are to fill them.

    A sample is ``image`` (C, I, J, K), the scan with altered intensities and noise in the regions,
    and with ``fill="lesions"`` the mask of the regions as a second channel; ``original``
    (1, I, J, K), the scan as it was; ``region`` (1, I, J, K), where the noise is.

    Attributes:
        fill: "lesions": the regions are the lesions of the patch. "healthy": some ellipsoids
            within the brain, which spare lesions.
        size_vox, batch_size, per_epoch, sampling, augmentation, auxiliary: as of ``Patches``.
        regions: "healthy": least and largest number of ellipsoids.
        radius_vox: "healthy": least and largest half axis.
        noise_std: of the noise, whose mean is 0.
    """

    fill: str
    size_vox: Shape
    batch_size: int = 4
    per_epoch: int = 500
    sampling: Sampling = field(default_factory=PatchSampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    regions: tuple[int, int] = (1, 8)
    radius_vox: tuple[float, float] = (1.5, 8.0)
    noise_std: float = 1.0
    auxiliary: Auxiliary | None = None

    def __post_init__(self) -> None:
        if self.fill not in ("lesions", "healthy"):
            raise ValueError(f"fill is lesions or healthy, not {self.fill}")

    def open(self, data: TrainingData, request: SampleRequest) -> SourceToFill:
        """The patches; refuses studies without a mask of all lesions."""
        studies = _outlined(
            studies_of(data, self.auxiliary, request.validation), request.reading, self.auxiliary
        )
        return SourceToFill(studies, self, request)


class SourceToFill(Dataset[Tensors]):
    """Numbered patches with regions of noise."""

    def __init__(
        self, studies: Sequence[Study], samples: PatchesToFill, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies)

    @property
    def per_epoch(self) -> int:
        return self.samples.per_epoch

    def __getitem__(self, number: int) -> Tensors:
        samples, rng = self.samples, self.request.rng(number)
        reading = self.request.reading
        moved = replace(samples.augmentation, intensity=None)
        sample = _drawn(self.volumes, samples, moved, reading, rng, copies=1)
        original = altered = sample.image[0]
        if samples.augmentation.intensity is not None:
            name = channel_names(1, reading.scans)
            altered = samples.augmentation.intensity(sample.image, name, rng)[0]
        lesions = sample.instances > 0
        if samples.fill == "lesions":
            region = lesions
        else:
            count = int(rng.integers(samples.regions[0], samples.regions[1] + 1))
            region = ellipsoids(original != 0, count, samples.radius_vox, rng)
            region &= ~ndimage.binary_dilation(lesions, FACES)
        noise = samples.noise_std * rng.standard_normal(original.shape, dtype=np.float32)
        image = [np.where(region, noise, altered)]
        if samples.fill == "lesions":
            image.append(region.astype(np.float32))
        return {
            "image": torch.from_numpy(np.stack(image).astype(np.float32)),
            "original": torch.from_numpy(original[None].copy()),
            "region": torch.from_numpy(region[None].astype(np.float32)),
        }


def ellipsoids(
    inside: BoolArray, count: int, radius_vox: tuple[float, float], rng: Generator
) -> BoolArray:
    """Random ellipsoids with their middles in a region, cut to it; none where it is empty.

    Example:
        >>> inside = np.zeros((20, 20, 20), dtype=np.bool_)
        >>> inside[4:16, 4:16, 4:16] = True
        >>> found = ellipsoids(inside, 3, (2.0, 4.0), np.random.default_rng(0))
        >>> bool(found.any()), bool((found & ~inside).any())
        (True, False)
    """
    found = np.zeros(inside.shape, dtype=np.bool_)
    middles = np.argwhere(inside)
    if not len(middles):
        return found
    where = np.indices(inside.shape, dtype=np.float32)
    for _ in range(count):
        middle = middles[rng.integers(len(middles))]
        radii = rng.uniform(*radius_vox, 3)
        apart = sum(((axis - m) / r) ** 2 for axis, m, r in zip(where, middle, radii, strict=True))
        found |= np.asarray(apart) <= 1
    return found & inside


@dataclass(frozen=True)
class Refill:
    """The mean squared error of a whole rebuilt patch: of the noise and of the rest.

    Attributes:
        region: weight of the mean error within the regions of noise, beside that of the whole
            patch, so that small regions count; 0 leaves the whole alone.
    """

    region: float = 1.0

    targets = None
    """The network paints, it finds nothing."""

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """Nothing: the original comes with the sample."""
        return EMPTY

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        painted = network(batch["image"]).float()
        whole = functional.mse_loss(painted, batch["original"])
        squared = (painted - batch["original"]) ** 2 * batch["region"]
        within = squared.sum() / batch["region"].sum().clamp(min=1)
        return {"total": whole + self.region * within, "whole": whole, "region": within}


# --- pairs made of single scans --------------------------------------------------------------


@dataclass(frozen=True)
class SyntheticPairs:
    """Pairs of visits made on the fly from patches of single scans with outlined lesions.

    The patch is moved at random, copied, and each copy gets image effects of its own. Each
    26-connected lesion stays in both visits, in the first, in the second or in neither, all equally
    likely. Further lesions have the shape of one of the patch's, mirrored at random; they lie near
    another, in the brain, where the scan has about the brightness of white matter, apart
    from every lesion, and are put into the first visit, the second, or both.

    A sample is ``image`` (2, I, J, K), both copies; ``remove`` and ``add`` (2, I, J, K), where each
    visit has a lesion to lose or to gain; ``noise`` (1, I, J, K) for the networks to fill; and the
    targets of what lies in the second visit alone.

    Attributes:
        size_vox, batch_size, per_epoch, sampling, augmentation, auxiliary: as of ``Patches``.
        added: most lesions that are put into a patch.
        reach_vox: how far from a lesion an added one lies at most, along each axis.
        tissue: least 10th and largest 90th percentile of the scan where an added lesion comes to
            lie; the scan is z-scored.
        noise_std: as the two networks were trained.
    """

    size_vox: Shape
    batch_size: int = 1
    per_epoch: int = 500
    sampling: Sampling = field(default_factory=lambda: PatchSampling(0.9))
    augmentation: Augmentation = field(default_factory=Augmentation)
    added: int = 2
    reach_vox: int = 16
    tissue: tuple[float, float] = (-1.0, 1.25)
    noise_std: float = 1.0
    auxiliary: Auxiliary | None = None

    def open(self, data: TrainingData, request: SampleRequest) -> SyntheticSource:
        """The pairs; refuses studies without a mask of all lesions.

        A pair of visits gives its last visit. The scans of ``reading`` are those of the last
        visit, its reference are all lesions there.
        """
        single = Reading(tuple(f"{scan}@followup" for scan in request.reading.scans), "lesions")
        studies = _outlined(
            studies_of(data, self.auxiliary, request.validation), single, self.auxiliary
        )
        return SyntheticSource(studies, self, replace(request, reading=single))


class SyntheticSource(Dataset[Tensors]):
    """Numbered synthetic pairs, before the networks paint."""

    def __init__(
        self, studies: Sequence[Study], samples: SyntheticPairs, request: SampleRequest
    ) -> None:
        self.samples, self.request = samples, request
        self.volumes = request.volumes(studies)

    @property
    def per_epoch(self) -> int:
        return self.samples.per_epoch

    def __getitem__(self, number: int) -> Tensors:
        request, samples, rng = self.request, self.samples, self.request.rng(number)
        sample = _drawn(self.volumes, samples, samples.augmentation, request.reading, rng, copies=2)
        lesions = sample.instances > 0
        remove, seen = fates(lesions, rng)
        shapes = added_lesions(sample.image[1], lesions, samples, rng)
        add = np.zeros_like(remove)
        for shape in shapes:
            fate = (BOTH, FIRST, SECOND)[int(rng.integers(3))]
            for visit in _visits_of(fate):
                add[visit] |= shape
        # New is what the second visit shows and the first does not, kept or painted in.
        new = (seen[1] & ~seen[0]) | (add[1] & ~add[0])
        noise = samples.noise_std * rng.standard_normal(lesions.shape, dtype=np.float32)
        pair = Sample(sample.image, new.astype(np.int32), EMPTY, sample.spacing_mm)
        return {
            **tensors(pair, request.objective),
            "remove": torch.from_numpy(remove.astype(np.float32)),
            "add": torch.from_numpy(add.astype(np.float32)),
            "noise": torch.from_numpy(noise[None]),
        }


def fates(lesions: BoolArray, rng: Generator) -> tuple[BoolArray, BoolArray]:
    """What is taken out of each visit, and what stays: both (2, I, J, K).

    Each 26-connected lesion stays in both visits, one of them or neither, all equally likely.

    Example:
        >>> lesions = np.zeros((9, 9, 9), dtype=np.bool_)
        >>> lesions[1:3, 1:3, 1:3] = lesions[5:8, 5:8, 5:8] = True
        >>> remove, stays = fates(lesions, np.random.default_rng(0))
        >>> remove.shape, bool(((remove | stays) == lesions).all()), bool((remove & stays).any())
        ((2, 9, 9, 9), True, False)
    """
    labels, count = cc3d.connected_components(lesions, connectivity=26, return_N=True)
    stays = np.zeros((2, count + 1), dtype=np.bool_)
    for label in range(1, count + 1):
        for visit in _visits_of(int(rng.integers(4))):
            stays[visit, label] = True
    seen = np.stack([stays[0][labels], stays[1][labels]])
    return lesions[None] & ~seen, seen


def _visits_of(fate: int) -> tuple[int, ...]:
    return {BOTH: (0, 1), FIRST: (0,), SECOND: (1,), NEITHER: ()}[fate]


def added_lesions(
    scan: NDArray[np.float32], lesions: BoolArray, samples: SyntheticPairs, rng: Generator
) -> list[BoolArray]:
    """Masks (I, J, K) of up to ``samples.added`` further lesions, apart from all others.

    Without a lesion in the patch there is no shape to take, and where no place fits, none is put.

    Example:
        >>> lesions = np.zeros((32, 32, 32), dtype=np.bool_)
        >>> lesions[14:17, 14:17, 14:17] = True
        >>> scan = np.full(lesions.shape, 0.1, dtype=np.float32)
        >>> samples, rng = SyntheticPairs((32, 32, 32), added=2), np.random.default_rng(1)
        >>> found = added_lesions(scan, lesions, samples, rng)
        >>> all(int(mask.sum()) == 27 and not (mask & lesions).any() for mask in found)
        True
    """
    labels, count = cc3d.connected_components(lesions, connectivity=26, return_N=True)
    found: list[BoolArray] = []
    if not count:
        return found
    taken = ndimage.binary_dilation(lesions, iterations=2)
    for _ in range(int(rng.integers(samples.added + 1))):
        near = np.argwhere(labels == rng.integers(1, count + 1)).mean(axis=0)
        shape = np.argwhere(labels == rng.integers(1, count + 1))
        shape = shape - shape.mean(axis=0).round().astype(int)
        shape = shape * rng.choice([-1, 1], 3)
        for _ in range(10):
            middle = near + rng.uniform(-samples.reach_vox, samples.reach_vox, 3)
            at = shape + middle.round().astype(int)
            if (at < 0).any() or (at >= scan.shape).any():
                continue
            index = tuple(at.T)
            dark, bright = np.percentile(scan[index], (10, 90))
            tissue = samples.tissue[0] <= dark and bright <= samples.tissue[1]
            if tissue and (scan[index] != 0).all() and not taken[index].any():
                mask = np.zeros(scan.shape, dtype=np.bool_)
                mask[index] = True
                found.append(mask)
                taken |= ndimage.binary_dilation(mask, iterations=2)
                break
    return found


@dataclass(frozen=True)
class OnSyntheticPairs:
    """A supervised objective on pairs of ``SyntheticPairs``, once the networks have painted.

    The part ``inpainter`` gets each visit with noise in place of the lesions it loses, (B, 1, …);
    the part ``generator`` that visit with noise where it gains lesions, and their mask,
    (B, 2, …). Of what they paint, the lesion and the voxels that touch it by a face are taken;
    all else stays the copy of the scan. No gradient passes through them.

    Attributes:
        supervised: targets and loss.
        inpainter, generator: names of the parts.
    """

    supervised: Supervised
    inpainter: str = "inpainter"
    generator: str = "generator"

    @property
    def targets(self) -> Targets:
        return self.supervised.targets

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The targets' own arrays."""
        return self.supervised.make(sample)

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        pair = painted_pair(parts[self.inpainter], parts[self.generator], batch)
        return self.supervised(network, parts, {**batch, "image": pair})


@torch.no_grad()
def painted_pair(
    inpainter: Callable[[torch.Tensor], torch.Tensor],
    generator: Callable[[torch.Tensor], torch.Tensor],
    batch: Mapping[str, Any],
) -> torch.Tensor:
    """Both visits as the networks paint them, (B, 2, I, J, K).

    Voxels outside the brain, which are exactly 0, stay so.

    Example:
        >>> image, noise = torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3)
        >>> remove, add = torch.zeros(2, 1, 2, 3, 3, 3, dtype=torch.bool)
        >>> add[:, 1, 1, 1, 1] = True  # the second visit gains a lesion
        >>> batch = {"image": image, "remove": remove, "add": add, "noise": noise}
        >>> generator = lambda noisy: torch.full_like(noisy[:, :1], 5)
        >>> pair = painted_pair(lambda scan: scan, generator, batch)
        >>> pair[0, 0, 1, 1].tolist(), pair[0, 1, 1, 1].tolist()
        ([1.0, 1.0, 1.0], [5.0, 5.0, 5.0])
    """
    visits = []
    for visit in range(2):
        scan = batch["image"][:, visit : visit + 1].float()
        inside = scan != 0
        remove = _with_rim(batch["remove"][:, visit : visit + 1]) & inside
        if bool(remove.any()):
            filled = inpainter(torch.where(remove, batch["noise"], scan)).float()
            scan = torch.where(remove, filled, scan)
        add = batch["add"][:, visit : visit + 1]
        if bool(add.any()):
            noisy = torch.where(add > 0, batch["noise"], scan)
            filled = generator(torch.cat([noisy, add.to(noisy)], dim=1)).float()
            scan = torch.where(_with_rim(add) & inside, filled, scan)
        visits.append(scan)
    return torch.cat(visits, dim=1)


def _with_rim(mask: torch.Tensor) -> torch.Tensor:
    """(B, 1, …) bool: the mask and the voxels that share a face with it."""
    grown = mask > 0
    wide = grown.clone()
    for axis in (2, 3, 4):
        wide.narrow(axis, 1, mask.shape[axis] - 1).logical_or_(
            grown.narrow(axis, 0, mask.shape[axis] - 1)
        )
        wide.narrow(axis, 0, mask.shape[axis] - 1).logical_or_(
            grown.narrow(axis, 1, mask.shape[axis] - 1)
        )
    return wide


# --- shared ----------------------------------------------------------------------------------


def _outlined(
    studies: Sequence[Study], reading: Reading, auxiliary: Auxiliary | None
) -> Sequence[Study]:
    """The studies, all of which say where all lesions are, some of them having one."""
    asked = f" (--auxiliary {auxiliary.name}=DATA gives single scans)" if auxiliary else ""
    found = False
    for study in studies:
        try:
            found = bool(reference_of(study, reading.task).any()) or found
        except InputError as error:
            raise InputError(f"{error}{asked}") from error
    if not found:
        raise InputError(f"the studies have no lesion: there is nothing to learn{asked}")
    return studies


def _drawn(
    volumes: TrainingVolumes,
    samples: PatchesToFill | SyntheticPairs,
    augmentation: Augmentation,
    reading: Reading,
    rng: Generator,
    copies: int,
) -> Sample:
    """A patch of a random volume: its scan ``copies`` times, augmented, each copy by itself."""
    number = int(rng.integers(len(volumes)))
    volume: TrainingVolume | TransformedVolume = volumes[number]
    if augmentation.spatial is not None:
        volume = transposed(volumes[number], augmentation.spatial.axis_permutation(rng))
    scan = reading.scans[0].partition("@")[0]
    copied = TransformedVolume(
        [volume.images[0]] * copies,
        volume.instances,
        EMPTY,
        volume.centers_vox,
        volume.brain,
        volume.spacing_mm,
        tuple(f"{scan}@{visit}" for visit in VISITS[-copies:]),
    )

    def start(volume: TrainingVolume | TransformedVolume) -> Shape:
        return samples.sampling.start(volume, samples.size_vox, rng)

    return cut(copied, start, samples.size_vox, augmentation, None, rng)
