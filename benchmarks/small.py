"""Recipes made small enough for two processor cores: for the leaderboard and for overfitting.

A recipe on the engine of our own sets its reduced form itself (``REDUCED`` in its file, what is
changed stands there); ``find_recipe("iqda:reduced")`` gives it. This file holds the same for the
rows of nnU-Net, and what overfitting to one pair changes further: no augmentation, patches around
lesions.

Reduced are: widths, patch, batch, learning rate, the number of epochs (a time limit ends the
training instead), validation while training (and with it early stopping by a score, and the choice
among weights), equal members of ensembles (one of each, without folds), mirrored views. A first
training on another data set takes place where such a set is given. Loss, targets, optimizer, the
course of the learning rate, heads and the steps before are the recipe's.

    python benchmarks/small.py FOLDER

writes each row of nnU-Net as a recipe file into FOLDER and prints all for ``lesionwise benchmark``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

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
from lesionwise.run.recipes import find_recipe, recipe_names
from lesionwise.types import InputError, Method, Step, all_methods

BATCHES_PER_EPOCH = 20
BY_HEART = "; no augmentation, patches around lesions"


@dataclass(frozen=True)
class NnunetReduction:
    """How a row of nnU-Net is made small; its patch may have two numbers."""

    patches: tuple[int, ...]
    rate: float
    features: int = 8
    batch: int = 2
    spacing_mm: tuple[float, ...] | None = None
    heatmap: float | None = None
    lesion_fraction: float = 0.9
    by_heart: bool = False

    def of(self, method: NnunetMethod) -> NnunetMethod:
        """The method with published loss, optimizer, schedule, dropout and heads."""
        made = replace(
            method,
            mirroring=False,
            engine="openvino",
            plans=replace(
                method.plans,
                patch_size_vox=self.patches,
                spacing_mm=self.spacing_mm,
                base_features=self.features,
                batch_size=self.batch,
            ),
            learning=replace(
                method.learning,
                learning_rate=self.rate,
                epochs=10_000,
                batches_per_epoch=BATCHES_PER_EPOCH,
                validation_batches=1,
            ),
        )
        if self.heatmap is not None and method.heads is not None:
            made = replace(made, heads=replace(method.heads, heatmap=self.heatmap))
        if not self.by_heart:
            return made
        return replace(
            made,
            learning=replace(made.learning, oversample_lesions=self.lesion_fraction),
            augmentation=Augmentation(
                rotation_deg=0.0, scaling=(1.0, 1.0), intensity=False, mirror=()
            ),
            case_steps=tuple(s for s in method.case_steps if not isinstance(s, AugmentedCopies)),
        )

    def __str__(self) -> str:
        spacing = f"; spacing {self.spacing_mm}" if self.spacing_mm else ""
        heat = "" if self.heatmap is None else f"; heatmap weight {self.heatmap:g}"
        return (
            f"base features {self.features}; patch {self.patches}{spacing}; batch {self.batch}"
            f"{heat}; learning rate {self.rate:g}" + (BY_HEART if self.by_heart else "")
        )


REDUCTIONS = {
    "conflunet-nnunet": NnunetReduction((32, 32, 32), 5e-3, heatmap=100.0),
    "nnunet-2d": NnunetReduction((96, 96), 1e-2, features=16, batch=8, lesion_fraction=0.5),
    "nnunet-longitudinal": NnunetReduction((32, 32, 32), 2e-3),
    "nnunet-empenn": NnunetReduction((32, 32, 32), 1e-2, spacing_mm=(1.0, 1.0, 1.0)),
}

BY_HEART_REDUCTIONS: dict[str, NnunetReduction] = {
    **{name: replace(reduction, by_heart=True) for name, reduction in REDUCTIONS.items()},
    "nnunet-empenn": replace(
        REDUCTIONS["nnunet-empenn"], features=16, lesion_fraction=0.5, by_heart=True
    ),
}
"""For overfitting to one pair; a dropout of 0.2 leaves too little of eight filters."""

PUBLISHED = "bsi-lightgbm"
"""A row that overfits with its published settings; a cube of 64 voxels is cut for it."""


def without_augmentation(method: Method) -> Method:
    """A network that overfits to one pair: patches around lesions, as they are."""
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
    if name in BY_HEART_REDUCTIONS:
        reduction = BY_HEART_REDUCTIONS[name]
        recipe = find_recipe(name)
        recipe = replace(recipe, method=change_methods(recipe.method, _nnunet(reduction)))
        return _with_steps(recipe, before_learned), reduction.patches, str(reduction)
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
    methods = [m for m in all_methods(recipe.method) if isinstance(m, NetworkMethod)]
    size = max(method.samples.size_vox for method in methods)
    first = methods[0]
    said = (
        f"{first.network.keywords}; patch {size}; batch {first.samples.batch_size}; learning rate "
        f"{first.optimization.learning_rate:g}{BY_HEART}"
    )
    return _with_steps(recipe, before_learned), size, said


def _nnunet(reduction: NnunetReduction) -> Callable[[Method], Method]:
    return lambda method: reduction.of(method) if isinstance(method, NnunetMethod) else method


def _with_steps(recipe: Recipe, before_learned: tuple[Step, ...]) -> Recipe:
    shared = shared_steps(recipe.preprocess)
    learned = recipe.preprocess[len(shared) :]
    return replace(recipe, preprocess=(*shared, *before_learned, *learned))


UNREDUCED = ("bsi-lightgbm", "subtraction-radiomics", "subtraction-threshold")
"""Rows that need no reduction."""


def reduced_rows() -> list[str]:
    """Recipes that have a reduced form of their own, as ``lesionwise benchmark`` names them."""
    found = []
    for name in recipe_names():
        try:
            recipe = find_recipe(f"{name}:reduced")
        except InputError:
            continue
        if recipe.visits == 2:
            found.append(f"{name}:reduced")
    return found


def small_nnunet(name: str) -> Recipe:
    """A row of nnU-Net, reduced."""
    recipe = find_recipe(name)
    return replace(recipe, method=change_methods(recipe.method, _nnunet(REDUCTIONS[name])))


def main() -> None:
    """Write a recipe file per row, which ``lesionwise benchmark`` takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in REDUCTIONS:
        text = (
            f'"""{name}, reduced: {REDUCTIONS[name]}."""\n\n'
            f"import sys\n\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n\n"
            f"from small import small_nnunet\n\n"
            f"RECIPE = small_nnunet({name!r})\n"
        )
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    files = [str(folder / f"{name}.py") for name in REDUCTIONS]
    print(",".join([*files, *reduced_rows(), *UNREDUCED]))


if __name__ == "__main__":
    main()
