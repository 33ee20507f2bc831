"""Methods without a network: propose candidates, describe them, decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lesionwise.change.features import FeatureTable
from lesionwise.instances.reference import NO_LESION, hard_labels, reference_of
from lesionwise.io.files import atomic_path, write_json
from lesionwise.io.record import sha256, sha256_of_bytes
from lesionwise.methods.clean_maps import Cleanup
from lesionwise.methods.members import deal
from lesionwise.types import (
    FloatArray,
    InputError,
    LabelArray,
    LesionMaps,
    Method,
    Predictor,
    RunContext,
    Study,
    Task,
    TrainingData,
)

MODEL = "model.txt"
TRAINING = "training.json"

Propose: TypeAlias = Callable[[Study], LabelArray]
"""Candidates of a prepared study: labels on the grid of its last visit, 0 = none."""

Describe: TypeAlias = Callable[[Study, LabelArray], FeatureTable]
"""Features of candidates, or of voxels."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The features of one training study, and how much of each row is to be found.

    Attributes:
        subject: of the study.
        features: a row per candidate or voxel.
        truth: (n,) share of each row's voxels that lie in the reference.
    """

    subject: str
    features: FeatureTable
    truth: NDArray[np.float64]


class Decision(Protocol):
    """From features to a score in [0, 1] for each row."""

    def fit(self, described: Iterable[TrainingRows], run: RunContext) -> None:
        """Learn from training studies; what was learned lies in ``run.folder`` afterwards."""

    def load(self, run: RunContext) -> Callable[[FeatureTable], FloatArray]:
        """What scores the rows of a table, (n,) float."""


@dataclass(frozen=True)
class CandidateMethod:
    """Candidates, their features, and a decision about each; the score is the probability.

    Attributes:
        propose: marks candidates on the grid of the last visit.
        describe: gives candidates, or voxels, their features.
        decide: rules, or a learned classifier.
        cleanup: changes the maps after the decision; None keeps them as they are.
        task: what is to be learned.
    """

    propose: Propose
    describe: Describe
    decide: Decision
    cleanup: Cleanup | None = None
    task: Task = "new"

    uses_validation = False
    """Nothing is chosen by validation studies."""

    def members(self) -> tuple[Method, ...]:
        """None."""
        return ()

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit the decision on the training studies.

        Raises:
            InputError: If there is nothing to learn from.
        """
        run.folder.mkdir(parents=True, exist_ok=True)
        self.decide.fit(self._described(data.training, run), run)

    def load(self, run: RunContext) -> Predictor:
        """The decision, applied to studies."""
        decide = self.decide.load(run)

        def predict(study: Study) -> LesionMaps:
            candidates = self.propose(study)
            features = self.describe(study, candidates)
            probability: FloatArray = features.painted(decide(features), candidates.shape)
            grid = next(iter(study.followup.scans.values())).grid
            maps = LesionMaps(probability.astype(np.float32, copy=False), grid)
            return maps if self.cleanup is None else self.cleanup(maps)

        return predict

    def _described(self, studies: Sequence[Study], run: RunContext) -> Iterator[TrainingRows]:
        for done, study in enumerate(studies):
            run.progress("features", done, len(studies))
            features = self.describe(study, self.propose(study))
            truth = features.share_of(hard_labels(reference_of(study, self.task)) > 0)
            yield TrainingRows(study.subject, features, truth)


@dataclass(frozen=True)
class Rule:
    """A candidate stays if a feature lies between two limits, both included.

    Attributes:
        feature: its name.
        min_value, max_value: None sets no limit. An undefined feature (NaN) meets none.
    """

    feature: str
    min_value: float | None = None
    max_value: float | None = None

    def __call__(self, features: FeatureTable) -> NDArray[np.bool_]:
        values = features.column(self.feature)
        low = -np.inf if self.min_value is None else np.float32(self.min_value)
        high = np.inf if self.max_value is None else np.float32(self.max_value)
        return np.asarray((values >= low) & (values <= high))


@dataclass(frozen=True)
class Rules:
    """Score 1 for what meets every rule, 0 for the others. Nothing is learned."""

    rules: tuple[Rule, ...] = ()

    def fit(self, described: Iterable[TrainingRows], run: RunContext) -> None:
        """Learn nothing; the training studies are not even described."""

    def load(self, run: RunContext) -> Callable[[FeatureTable], FloatArray]:
        """The rules."""

        def decide(features: FeatureTable) -> FloatArray:
            kept = np.ones(len(features.values), dtype=np.bool_)
            for rule in self.rules:
                kept &= rule(features)
            return kept.astype(np.float32)

        return decide


@dataclass(frozen=True)
class LightGbm:
    """Gradient-boosted trees; the score is the probability that a row is to be found.

    The number of trees is the one with the least cross-entropy in a cross-validation by
    subject: growing stops once that has not fallen for ``patience`` trees. Then all rows train
    that many. With fewer subjects than ``folds``, rows are dealt into the folds at random, which
    lets more trees grow than new subjects would ask for. A row counts as positive where more than
    half of its voxels are in the reference.

    Where a study has more than ``rows_per_study`` rows, all positive rows stay. Of the rows on
    candidates (a feature named ``candidate`` above 0) so many are drawn that, with those, half
    the number is reached, and of the others what is left of it; at least a quarter of the number
    each, where there are so many. What was drawn weighs as much as all it stands for, so that
    scores remain probabilities.

    The model is LightGBM's text format in ``model.txt``; nothing is pickled. LightGBM ends the
    process on some damaged files, so ``training.json`` keeps the file's SHA-256 and ``load``
    compares it before LightGBM reads a byte. Rows are shuffled and split by the run's seed, and
    training is deterministic on one machine.

    Attributes:
        learning_rate, leaves, min_rows_per_leaf: of the trees; LightGBM's own defaults.
        min_hessian_per_leaf: least sum of second derivatives in a leaf. LightGBM's default of
            0.001 lets leaves without a positive row take values without bound where positive
            rows are one in a thousand; growing then stops after a tree or two.
        max_trees: upper limit.
        patience: trees.
        folds: of the cross-validation, 2 or more.
        rows_per_study: limit, as above; the positive rows can exceed it.
    """

    learning_rate: float = 0.1
    leaves: int = 31
    min_rows_per_leaf: int = 20
    min_hessian_per_leaf: float = 1.0
    max_trees: int = 1000
    patience: int = 50
    folds: int = 5
    rows_per_study: int = 100_000

    def fit(self, described: Iterable[TrainingRows], run: RunContext) -> None:
        """Train, and leave ``model.txt`` and ``training.json``.

        Raises:
            InputError: If no row, or every row, is to be found.
        """
        lightgbm = _lightgbm()
        names: tuple[str, ...] = ()
        parts: list[tuple[FloatArray, NDArray[np.bool_], FloatArray]] = []
        subjects: list[str] = []
        for number, each in enumerate(described):
            rng = np.random.default_rng([run.seed, number])
            names = each.features.names
            parts.append(self._sampled(each, rng))
            subjects += [each.subject] * len(parts[-1][1])
        if not parts:
            raise InputError("no study to learn from")
        rows, positive, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not positive.any() or positive.all():
            raise InputError(NO_LESION)
        settings = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.min_rows_per_leaf,
            "min_sum_hessian_in_leaf": self.min_hessian_per_leaf,
            "seed": run.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(
            rows, positive.astype(np.float32), weight=weight, feature_name=_plain(names)
        )
        run.progress("trees", 0, 1)
        trees, loss = self._count_trees(lightgbm, settings, data, np.array(subjects), run.seed)
        model = lightgbm.train(settings, data, num_boost_round=trees)
        with atomic_path(run.folder / MODEL) as partial:
            model.save_model(str(partial))
        run.progress("trees", 1, 1)
        summary = {
            "rows": len(rows),
            "positive_rows": int(positive.sum()),
            "subjects": len(set(subjects)),
            "trees": trees,
            "cross_entropy": loss,
            "parameters": trees * (2 * self.leaves - 1),
            "sha256": sha256(run.folder / MODEL),
        }
        write_json(run.folder / TRAINING, summary)

    def load(self, run: RunContext) -> Callable[[FeatureTable], FloatArray]:
        """The trees of ``model.txt``.

        Raises:
            InputError: If the file is missing, or not the one that was trained: its SHA-256 is
                not that of ``training.json``.
        """
        path = run.folder / MODEL
        text = _trained_text(path, run.folder / TRAINING)
        lightgbm = _lightgbm()
        try:
            model = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise InputError(f"{path}: not a LightGBM model ({_first_line(error)})") from error

        def decide(features: FeatureTable) -> FloatArray:
            if model.feature_name() != _plain(features.names):
                raise InputError(f"{path}: learned from other features")
            if not len(features.values):
                return np.zeros(0, dtype=np.float32)
            return np.asarray(model.predict(features.values), dtype=np.float32)

        return decide

    def _sampled(
        self, described: TrainingRows, rng: np.random.Generator
    ) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
        features = described.features
        positive = described.truth > 0.5
        weight = np.ones(len(positive))
        if len(positive) <= self.rows_per_study:
            return features.values, positive, weight
        candidate = np.zeros(len(positive), dtype=np.bool_)
        if "candidate" in features.names:
            candidate = (features.column("candidate") > 0) & ~positive
        kept = positive.copy()
        for group, most in (
            (candidate, self.rows_per_study // 2),
            (~candidate & ~positive, self.rows_per_study),
        ):
            rows = np.flatnonzero(group)
            wanted = min(len(rows), max(most - int(kept.sum()), self.rows_per_study // 4))
            chosen = rng.choice(rows, wanted, replace=False)
            kept[chosen] = True
            weight[chosen] = len(rows) / max(1, wanted)
        return features.values[kept], positive[kept], weight[kept]

    def _count_trees(
        self,
        lightgbm: Any,
        settings: dict[str, Any],
        data: Any,
        subjects: NDArray[np.str_],
        seed: int,
    ) -> tuple[int, float]:
        """How many trees do best on rows they have not seen, and the cross-entropy there."""
        names = np.unique(subjects)
        if len(names) >= self.folds:
            part_of = deal([Study(str(name), ()) for name in names], self.folds, seed)
            part = np.array([part_of[name] for name in subjects])
        else:
            part = np.random.default_rng(seed).permutation(len(subjects)) % self.folds
        splits = [
            (np.flatnonzero(part != number), np.flatnonzero(part == number))
            for number in range(self.folds)
        ]
        found = lightgbm.cv(
            settings,
            data,
            num_boost_round=self.max_trees,
            folds=splits,
            callbacks=[lightgbm.early_stopping(self.patience, verbose=False)],
        )
        losses = found["valid binary_logloss-mean"]
        return len(losses), float(losses[-1])


def _trained_text(path: Path, summary: Path) -> str:
    """The text of a model file whose hash is the one that training kept."""
    try:
        content = path.read_bytes()
        kept = json.loads(summary.read_text(encoding="utf-8"))
        expected = kept["sha256"]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; train again") from error
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{summary}: no SHA-256 of {path.name}; train again") from error
    if sha256_of_bytes(content) != expected:
        raise InputError(f"{path}: damaged or changed since it was trained (another SHA-256)")
    return content.decode("utf-8")


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise InputError(
            "LightGBM is not installed; install lesionwise[lightgbm] for this recipe"
        ) from error
    return lightgbm


def _plain(names: Sequence[str]) -> list[str]:
    """LightGBM takes no blanks in names."""
    return [name.replace(" ", "_") for name in names]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
