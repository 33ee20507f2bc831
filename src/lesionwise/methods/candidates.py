"""Methods without a network: propose candidates, describe them, decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lesionwise.change.features import ELLIPSOID, FeatureTable, axis_lengths
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, connected_components
from lesionwise.instances.reference import reference_of
from lesionwise.methods.members import deal
from lesionwise.types import (
    Finds,
    FloatArray,
    InputError,
    LabelArray,
    LesionMaps,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
)

MODEL = "model.txt"
TRAINING = "training.json"

Propose: TypeAlias = Callable[[Study], LabelArray]
"""Candidates of a prepared study: labels on the grid of its last visit, 0 = none."""

Describe: TypeAlias = Callable[[Study, LabelArray], FeatureTable]
"""Features of candidates, or of voxels."""

Tidy: TypeAlias = Callable[[FloatArray], FloatArray]
"""What is taken out of a probability map after the decision."""


@dataclass(frozen=True, eq=False)
class Described:
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

    def fit(self, described: Iterable[Described], run: RunContext) -> None:
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
        tidy: takes something out of the map of scores; None keeps it as it is.
        finds: what is to be learned.
    """

    propose: Propose
    describe: Describe
    decide: Decision
    tidy: Tidy | None = None
    finds: Finds = "new"

    @property
    def uses_validation(self) -> bool:
        """False: nothing is chosen by validation studies."""
        return False

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
            if self.tidy is not None:
                probability = self.tidy(probability)
            grid = next(iter(study.followup.scans.values())).grid
            return LesionMaps(probability.astype(np.float32, copy=False), grid)

        return predict

    def _described(self, studies: Sequence[Study], run: RunContext) -> Iterator[Described]:
        for done, study in enumerate(studies):
            run.progress("features", done, len(studies))
            features = self.describe(study, self.propose(study))
            truth = features.share_of(reference_of(study, self.finds) > 0)
            yield Described(study.subject, features, truth)


@dataclass(frozen=True)
class Rule:
    """A candidate stays if a feature lies between two limits, both included.

    Attributes:
        feature: its name.
        least, most: None sets no limit. An undefined feature (NaN) meets none.
    """

    feature: str
    least: float | None = None
    most: float | None = None

    def __call__(self, features: FeatureTable) -> NDArray[np.bool_]:
        values = features.column(self.feature)
        low = -np.inf if self.least is None else np.float32(self.least)
        high = np.inf if self.most is None else np.float32(self.most)
        return np.asarray((values >= low) & (values <= high))


@dataclass(frozen=True)
class Rules:
    """Score 1 for what meets every rule, 0 for the others. Nothing is learned."""

    rules: tuple[Rule, ...] = ()

    def fit(self, described: Iterable[Described], run: RunContext) -> None:
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

    The model is LightGBM's text format in ``model.txt``; nothing is pickled. Rows are shuffled
    and split by the run's seed, and training is deterministic on one machine.

    Attributes:
        learning_rate, leaves, least_rows: of the trees; LightGBM's own defaults.
        least_hessian: least sum of second derivatives in a leaf. LightGBM's default of 0.001
            lets leaves without a positive row take values without bound where positive rows
            are one in a thousand; growing then stops after a tree or two.
        most_trees: upper limit.
        patience: trees.
        folds: of the cross-validation, 2 or more.
        rows_per_study: limit, as above; the positive rows can exceed it.

    Used by B1.
    """

    learning_rate: float = 0.1
    leaves: int = 31
    least_rows: int = 20
    least_hessian: float = 1.0
    most_trees: int = 1000
    patience: int = 50
    folds: int = 5
    rows_per_study: int = 100_000

    def fit(self, described: Iterable[Described], run: RunContext) -> None:
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
            raise InputError("no lesion lies in the training studies: there is nothing to learn")
        settings = {
            "objective": "binary",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": self.least_rows,
            "min_sum_hessian_in_leaf": self.least_hessian,
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
        partial = run.folder / f".{MODEL}.partial"
        model.save_model(str(partial))
        partial.replace(run.folder / MODEL)
        run.progress("trees", 1, 1)
        summary = {
            "rows": len(rows),
            "positive_rows": int(positive.sum()),
            "subjects": len(set(subjects)),
            "trees": trees,
            "cross_entropy": loss,
            "parameters": trees * (2 * self.leaves - 1),
        }
        (run.folder / TRAINING).write_text(json.dumps(summary, indent=2), encoding="utf-8")

    def load(self, run: RunContext) -> Callable[[FeatureTable], FloatArray]:
        """The trees of ``model.txt``.

        Raises:
            InputError: If the file is missing or malformed.
        """
        path = run.folder / MODEL
        if not path.is_file():
            raise InputError(f"{path}: no such model file")
        lightgbm = _lightgbm()
        try:
            model = lightgbm.Booster(model_str=path.read_text(encoding="utf-8"))
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a LightGBM model ({_first_line(error)})") from error

        def decide(features: FeatureTable) -> FloatArray:
            if model.feature_name() != _plain(features.names):
                raise InputError(f"{path}: learned from other features")
            if not len(features.values):
                return np.zeros(0, dtype=np.float32)
            return np.asarray(model.predict(features.values), dtype=np.float32)

        return decide

    def _sampled(
        self, described: Described, rng: np.random.Generator
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
            num_boost_round=self.most_trees,
            folds=splits,
            callbacks=[lightgbm.early_stopping(self.patience, verbose=False)],
        )
        losses = found["valid binary_logloss-mean"]
        return len(losses), float(losses[-1])


@dataclass(frozen=True)
class DropThinPatches:
    """Take patches out of a map that are too thin or too small.

    A patch is a connected component of the voxels above ``patch_above``. Voxels outside
    patches are set to 0 as well.

    Attributes:
        min_axis_vox: least length of the shortest axis, in voxels: of the ellipsoid with the
            same second moments. A patch of exactly this length stays.
        min_vox: least number of voxels; a patch of exactly so many stays.
        patch_above: exclusive.
        connectivity: 6, 18 or 26.

    Used by B1.
    """

    min_axis_vox: float = 2.0
    min_vox: int = 27
    patch_above: float = 0.1
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, probability: FloatArray) -> FloatArray:
        labels = connected_components(probability > self.patch_above, self.connectivity)
        index = np.argwhere(labels)
        row = labels[labels > 0].astype(np.int64) - 1
        count = int(labels.max(initial=0))
        axes = axis_lengths(index.astype(np.float64), row, count, ELLIPSOID)
        size = np.bincount(row, minlength=count)
        stays = (axes[:, 0] >= self.min_axis_vox * (1 - 1e-9)) & (size >= self.min_vox)
        kept = np.concatenate([[False], stays])[labels]
        return np.asarray(np.where(kept, probability, np.float32(0)))


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
