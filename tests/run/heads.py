"""A head with countable lesions, and a model that finds what is bright."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionwise.instances.components import ConnectedComponents, connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.offsets import OffsetVoting
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Citation, Recipe
from lesionwise.run.load_model import LoadedModel
from lesionwise.types import LesionMaps

SHAPE = (80, 96, 72)
SPACING_MM = 2.0
LESIONS = {"a": (20, 40, 36), "b": (44, 60, 30), "c": (50, 30, 44)}
"""First voxel of each cube of 4 voxels (8 mm)."""


def head(names="abc", shift=(0, 0, 0)):
    """A stripped brain of 1.3 l with one bright cube a name: (I, J, K) float32."""
    axes = np.meshgrid(*[(np.arange(n) - n / 2) * SPACING_MM for n in SHAPE], indexing="ij")
    inside = sum((a / r) ** 2 for a, r in zip(axes, (64, 80, 60), strict=True)) < 1
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 30, SHAPE), 1)
    image = np.where(inside, 100 + noise, 0)
    for name in names:
        i, j, k = LESIONS[name]
        image[i : i + 4, j : j + 4, k : k + 4] = 300
    return np.roll(image, shift, axis=(0, 1, 2)).astype(np.float32)


def save(path, array, affine=None):
    affine = np.diag([SPACING_MM] * 3 + [1.0]) if affine is None else affine
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def bright(study):
    """Probability 1 where the z-score exceeds 3, and perfect centers and offsets."""
    volume = study.followup.scans["flair"]
    found = volume.array > 3
    labels = connected_components(found)
    heatmap = np.zeros(labels.shape, np.float32)
    offsets = np.zeros((3, *labels.shape), np.float32)
    for label in range(1, labels.max() + 1):
        index = np.argwhere(labels == label)
        center = index.mean(axis=0)
        heatmap[tuple(np.round(center).astype(int))] = 1
        offsets[(slice(None), *index.T)] = (center - index).T
    return LesionMaps(found.astype(np.float32), volume.grid, heatmap, offsets)


class Bright:
    """Stands where a trained network would."""

    def fit(self, data, run):
        raise AssertionError("there is nothing to learn")

    def load(self, run):
        return bright


def bright_model(**changes):
    recipe = Recipe(
        citation=Citation(title="none"),
        scans=("flair",),
        preprocess=(ExtractBrain(), Resample(2.0), ZScore(within="brain", zero_outside=True)),
        method=Bright(),
        to_instances=OffsetVoting(),
        refine=(DropSmall(),),
        departures=("made up for a test",),
        **changes,
    )
    return LoadedModel(recipe, bright, "bright", "0" * 64, {})


def brighter(study):
    """Probability 1 where the follow-up's z-score exceeds 3 and the baseline's does not."""
    before, after = (visit.scans["flair"] for visit in study.visits)
    found = (after.array > 3) & (before.array < 2)
    return LesionMaps(found.astype(np.float32), after.grid)


class Brighter:
    """Stands where a trained network that takes two visits would."""

    def fit(self, data, run):
        raise AssertionError("there is nothing to learn")

    def load(self, run):
        return brighter


def pair_model(*steps, **changes):
    recipe = Recipe(
        citation=Citation(title="none"),
        scans=("flair",),
        preprocess=(ExtractBrain(), *steps, ZScore(within="brain", zero_outside=True)),
        method=Brighter(),
        to_instances=ConnectedComponents(),
        visits=2,
        task="new",
        **changes,
    )
    return LoadedModel(recipe, brighter, "brighter", "0" * 64, {})
