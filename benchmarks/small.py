"""Recipes that overfit to one pair of visits on two processor cores.

A recipe file sets its reduced form itself (``REDUCED``; what is changed stands there), and
``find_recipe("iqda:reduced")`` gives it. This file holds what overfitting to one pair changes
further: no augmentation, patches around lesions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from lesionwise.learning.candidate_crops import CandidateCrops, UnequalCrops
from lesionwise.learning.positions import EqualClasses
from lesionwise.learning.samplers import BrainSampling, PatchSampling
from lesionwise.learning.samples import Augmentation as PatchAugmentation
from lesionwise.learning.samples import CombinedSamples, ListedPatches, Patches, Samples
from lesionwise.learning.stratified import PatchesOfEachStudy, StratifiedPatches
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.nnunet import Augmentation, AugmentedCopies, NnunetMethod
from lesionwise.recipe import Recipe
from lesionwise.reduction import change_methods, replace_methods
from lesionwise.run.learned_steps import shared_steps
from lesionwise.run.recipes import find_recipe
from lesionwise.types import Method, Step, all_methods

BATCHES_PER_EPOCH = 20
BY_HEART = "; no augmentation, patches around lesions"

OTHER_BY_HEART = {
    "nnunet-2d": {"lesion_fraction": 0.5},
    "nnunet-empenn": {"lesion_fraction": 0.5, "base_features": 16},
}
"""For overfitting to one pair; a dropout of 0.2 leaves too little of eight filters."""

PUBLISHED = "bsi-lightgbm"
"""A row that overfits with its published settings; a cube of 64 voxels is cut for it."""


def without_augmentation(method: Method) -> Method:
    """A network that overfits to one pair: patches around lesions, as they are."""
    if isinstance(method, NnunetMethod):
        return replace(
            method,
            learning=replace(method.learning, oversample_lesions=0.9),
            augmentation=Augmentation(
                rotation_deg=0.0, scaling=(1.0, 1.0), intensity=False, mirror=()
            ),
            case_steps=tuple(s for s in method.case_steps if not isinstance(s, AugmentedCopies)),
        )
    if not isinstance(method, NetworkMethod):
        return method
    return replace(method, samples=_around_lesions(method.samples))


def _around_lesions(samples: Samples) -> Samples:
    if isinstance(samples, CombinedSamples):
        return replace(
            samples, sources=tuple((name, _around_lesions(each)) for name, each in samples.sources)
        )
    if isinstance(samples, Patches):
        return replace(samples, sampling=PatchSampling(0.9), augmentation=PatchAugmentation())
    if isinstance(samples, ListedPatches):
        return replace(samples, balance=EqualClasses(), augmentation=PatchAugmentation())
    if isinstance(samples, CandidateCrops):
        return replace(samples, augmentation=PatchAugmentation())
    if isinstance(samples, UnequalCrops):
        crops = replace(samples.crops, augmentation=PatchAugmentation())
        return replace(samples, crops=crops)
    if isinstance(samples, StratifiedPatches):
        return replace(samples, lesion_fraction=0.9, augmentation=PatchAugmentation())
    if isinstance(samples, PatchesOfEachStudy):
        around = PatchSampling(0.9)
        sampling = around if isinstance(samples.sampling, BrainSampling) else samples.sampling
        return replace(samples, sampling=sampling, augmentation=PatchAugmentation())
    return samples


def by_heart(name: str, *before_learned: Step) -> tuple[Recipe, tuple[int, ...], str]:
    """A recipe that overfits to one pair, its patch, and what was reduced, in words.

    Further steps come after those that do not learn.
    """
    if name == PUBLISHED:
        return _with_steps(find_recipe(name), before_learned), (64, 64, 64), "nothing"
    recipe = find_recipe(f"{name}:reduced")
    steps = tuple(
        replace_methods(step, without_augmentation) if hasattr(step, "members") else step
        for step in recipe.preprocess
    )
    recipe = replace(
        recipe, preprocess=steps, method=change_methods(recipe.method, without_augmentation)
    )
    nnunet = [m for m in all_methods(recipe.method) if isinstance(m, NnunetMethod)]
    if nnunet:
        other = OTHER_BY_HEART.get(name, {})
        recipe = replace(recipe, method=change_methods(recipe.method, partial(_nnunet, other)))
        plans, learning = nnunet[0].plans, nnunet[0].learning
        size = plans.patch_size_vox or ()
        said = (
            f"base features {other.get('base_features', plans.base_features)}; patch {size}; batch "
            f"{plans.batch_size}; learning rate {learning.learning_rate:g}{BY_HEART}"
        )
        return _with_steps(recipe, before_learned), size, said
    methods = [m for m in all_methods(recipe.method) if isinstance(m, NetworkMethod)]
    size = max(method.samples.size_vox for method in methods)
    first = methods[0]
    said = (
        f"{first.network.keywords}; patch {size}; batch {first.samples.batch_size}; learning rate "
        f"{first.optimization.learning_rate:g}{BY_HEART}"
    )
    return _with_steps(recipe, before_learned), size, said


def _nnunet(other: Mapping[str, Any], method: Method) -> Method:
    """nnU-Net with another share of patches around lesions, or other filters."""
    if not isinstance(method, NnunetMethod):
        return method
    learning, plans = method.learning, method.plans
    if "lesion_fraction" in other:
        learning = replace(learning, oversample_lesions=other["lesion_fraction"])
    if "base_features" in other:
        plans = replace(plans, base_features=other["base_features"])
    return replace(method, learning=learning, plans=plans)


def _with_steps(recipe: Recipe, before_learned: tuple[Step, ...]) -> Recipe:
    shared = shared_steps(recipe.preprocess)
    learned = recipe.preprocess[len(shared) :]
    return replace(recipe, preprocess=(*shared, *before_learned, *learned))
