"""The rows' methods made small enough for two processor cores: narrow networks, small patches.

Loss, targets, optimizer, schedule, heads and all steps of preprocessing stay the document's.
Prediction goes without mirrored views, by OpenVINO where that is installed.
``overfit.py`` uses them, and

    python benchmarks/small.py FOLDER

writes each as a recipe file into FOLDER and prints their paths for ``lesionwise benchmark``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lesionwise.inference.window import SlidingWindow
from lesionwise.learning.samplers import PatchSampling
from lesionwise.methods.candidates import CandidateMethod
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import Ensemble, PositiveCases, SegmentThenCompare
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.nnunet import Augmentation, AugmentedCopies, NnunetMethod
from lesionwise.recipe import Recipe
from lesionwise.run.steps import shared_steps
from lesionwise.types import Method, Step

BATCHES_PER_EPOCH = 20
BY_HEART = "; no augmentation, patches around lesions"


@dataclass(frozen=True)
class Reduction:
    """How a row's networks are made small: keywords of its network, patch, rate, batch."""

    network: dict[str, object]
    patch: int
    rate: float
    batch: int = 2
    by_heart: bool = False

    @property
    def patches(self) -> tuple[int, ...]:
        return (self.patch,) * 3

    def of(self, method: NetworkMethod) -> NetworkMethod:
        """The method with published loss, targets, optimizer and schedule."""
        made = replace(
            method,
            network=partial(method.network.func, **{**method.network.keywords, **self.network}),
            patch_size_vox=(self.patch,) * 3,
            learning_rate=self.rate,
            batch_size=self.batch,
            patches_per_epoch=10 * self.batch,
            epochs=10_000,
            validate_every=10_000,
            stop=None,
            window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
        )
        if not self.by_heart:
            return made
        return replace(made, sampling=PatchSampling(lesion_share=0.9), spatial=None, intensity=None)

    def __str__(self) -> str:
        kept = ", ".join(f"{name} {value}" for name, value in self.network.items())
        return f"{kept}; patch {self.patch}; batch {self.batch}; learning rate {self.rate:g}" + (
            BY_HEART if self.by_heart else ""
        )


@dataclass(frozen=True)
class NnunetReduction:
    """How a row of nnU-Net is made small; its patch may have two numbers."""

    patches: tuple[int, ...]
    rate: float
    features: int = 8
    batch: int = 2
    spacing_mm: tuple[float, ...] | None = None
    heatmap: float | None = None
    lesion_share: float = 0.9
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
            learning=replace(made.learning, oversample_lesions=self.lesion_share),
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


@dataclass(frozen=True)
class Published:
    """A row that learns by heart with its published settings; the patch is the least cut."""

    patch: int

    @property
    def patches(self) -> tuple[int, ...]:
        return (self.patch,) * 3

    def of(self, method: CandidateMethod) -> CandidateMethod:
        """The method itself."""
        return method

    def __str__(self) -> str:
        return "nothing"


REDUCTIONS = {
    "conflunet-nnunet": NnunetReduction((32, 32, 32), 5e-3, heatmap=100.0),
    "nnunet-2d": NnunetReduction((96, 96), 1e-2, features=16, batch=8, lesion_share=0.5),
    "nnunet-longitudinal": NnunetReduction((32, 32, 32), 2e-3),
    "nnunet-empenn": NnunetReduction((32, 32, 32), 1e-2, spacing_mm=(1.0, 1.0, 1.0)),
    "nnunet-subtraction": Reduction({"features": (8, 16, 32, 64, 64)}, 48, 2e-3),
    "iqda": Reduction({"features": (8, 16, 32, 64)}, 48, 2e-3),
    "pre-unet": Reduction({"features": (8, 16, 32, 64)}, 48, 2e-3),
    "antialias-unet": Reduction({"features": (8, 8, 16, 16, 24)}, 48, 2e-2),
    "cascade-probability": Reduction({"features": (8, 16, 32, 64, 64, 64)}, 64, 2e-3),
    "segresnet-ensemble": Reduction({"features": 8}, 32, 2e-3),
}

BY_HEART_REDUCTIONS: dict[str, Reduction | NnunetReduction | Published] = {
    **{name: replace(reduction, by_heart=True) for name, reduction in REDUCTIONS.items()},
    "nnunet-empenn": replace(
        REDUCTIONS["nnunet-empenn"], features=16, lesion_share=0.5, by_heart=True
    ),
    "bsi-lightgbm": Published(64),
}
"""For learning one pair by heart; a dropout of 0.2 leaves too little of eight filters."""


def reduced(method: Method, change: Callable[..., Method]) -> Method:
    """The method with every network changed, one member of each ensemble, nothing pre-trained."""
    if isinstance(method, NetworkMethod | NnunetMethod | CandidateMethod):
        return change(method)
    if isinstance(method, Ensemble):
        kinds = tuple(dict.fromkeys(method.members))
        return replace(method, members=tuple(reduced(m, change) for m in kinds), folds=0)
    if isinstance(method, SegmentThenCompare):
        return replace(method, method=reduced(method.method.then, change))
    if isinstance(method, PositiveCases):
        return replace(method, method=reduced(method.method, change))
    raise TypeError(type(method).__name__)


def small(
    recipe: Recipe, reduction: Reduction | NnunetReduction | Published, *before_learned: Step
) -> Recipe:
    """The recipe with its methods reduced; further steps come after those that do not learn."""
    shared = shared_steps(recipe.preprocess)
    learned = tuple(
        replace(step, method=reduced(step.method, reduction.of))
        if isinstance(step, AddMaps)
        else step
        for step in recipe.preprocess[len(shared) :]
    )
    return replace(
        recipe,
        preprocess=(*shared, *before_learned, *learned),
        method=reduced(recipe.method, reduction.of),
    )


UNREDUCED = ("bsi-lightgbm", "subtraction-radiomics", "subtraction-threshold")
"""Rows that need no reduction."""


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
            f"from small import REDUCTIONS, small\n\n"
            f"from lesionwise.run.recipes import find_recipe\n\n"
            f"RECIPE = small(find_recipe({name!r}), REDUCTIONS[{name!r}])\n"
        )
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    print(",".join([*(str(folder / f"{name}.py") for name in REDUCTIONS), *UNREDUCED]))


if __name__ == "__main__":
    main()
