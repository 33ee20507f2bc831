"""The public functions: what a script or notebook calls as ``lesionwise.segment(…)``.

Each is a command as a function. Paths may be strings. Options are the commands' options; where an
option is None, the default of the command or of the recipe holds. Bad input raises
``lesionwise.types.InputError`` with one line that names the file.

Three functions have longer names than their commands, because packages have the short ones:
``simulate_patients``, ``process_cohort`` and ``rebuild_pages``. What a function needs is imported
when it is called, so ``import lesionwise`` takes no time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lesionwise import defaults
from lesionwise.types import Progress, no_progress

if TYPE_CHECKING:
    from lesionwise.cohort.group import Group
    from lesionwise.metrics.case import Options
    from lesionwise.metrics.evaluation import Evaluation
    from lesionwise.report.folder import PageResult
    from lesionwise.run.benchmark import BenchmarkResult
    from lesionwise.run.compare import Comparison
    from lesionwise.run.export import ExportResult
    from lesionwise.run.find_lesions import FindOptions
    from lesionwise.run.predict import PredictResult
    from lesionwise.run.search import SearchResult
    from lesionwise.run.segment import SegmentResult
    from lesionwise.run.split import SplitResult
    from lesionwise.simulate.scanner import Style

PathLike: TypeAlias = str | os.PathLike[str]


def segment(
    scans: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    model: PathLike = defaults.MODEL,
    instances: defaults.Separation | None = None,
    threshold: float | None = None,
    min_peak: float | None = None,
    min_volume_mm3: float | None = None,
    min_extent_mm: float | None = None,
    brain_mask: PathLike | None = None,
    extract_brain: bool = True,
    further_scans: Mapping[str, PathLike] | None = None,
    device: str = "auto",
    overwrite: bool = False,
    on_progress: Progress = no_progress,
) -> SegmentResult:
    """Find and separate the lesions of FLAIR scans; masks, tables and pages are in ``output``.

    Args:
        scans: NIfTI files, DICOM series folders, BIDS data sets, or one of these.
        output: folder for the results; later calls add to it.
        model: a shipped model's name (``model_names``), a run folder, or ``nnunet:DIR``.
        instances: how touching lesions are separated; None takes the recipe's way. The other
            ways are computed too and have tables of their own.
        threshold: the mask is probability > threshold; None takes the recipe's.
        min_peak: lesions whose highest probability is below it are dropped, from the mask too; None
            takes the recipe's, 0 keeps all.
        min_volume_mm3, min_extent_mm: smaller lesions are dropped, never mask voxels; None takes
            the recipe's limits, 0 switches a limit off.
        brain_mask: on the scan's grid, for a single scan.
        extract_brain: False for scans that are without skull already.
        further_scans: files of other contrasts that the model takes, such as ``{"t1w": "T1.nii"}``,
            for a single scan.
        device: "auto", "cpu", "cuda" …
        overwrite: make results again that are there.
        on_progress: called with stage, done and total.

    Returns:
        ``summary`` (a table, one row a scan), ``failures`` (reason by file), ``page``, ``quality``.

    Raises:
        InputError: If the folder has other results or settings, an option is wrong, or a single
            scan cannot be used. Among several scans the reason is in ``failures``.

    Example:
        >>> import lesionwise
        >>> result = lesionwise.segment("sub-01_FLAIR.nii.gz", "out")
        >>> int(result.summary["lesions"].sum())
        3
    """
    from lesionwise.run.segment import segment as run

    return run(
        _paths(scans),
        Path(output),
        model=_named(model),
        options=_find_options(
            instances, threshold, min_peak, min_volume_mm3, min_extent_mm, extract_brain
        ),
        brain_mask=None if brain_mask is None else Path(brain_mask),
        further={name: Path(path) for name, path in (further_scans or {}).items()},
        device=device,
        overwrite=overwrite,
        progress=on_progress,
    )


def compare(
    visits: Sequence[PathLike],
    output: PathLike,
    *,
    model: PathLike = defaults.MODEL,
    instances: defaults.Separation | None = None,
    threshold: float | None = None,
    min_peak: float | None = None,
    min_volume_mm3: float | None = None,
    min_extent_mm: float | None = None,
    extract_brain: bool = True,
    new_lesions: PathLike | None = None,
    same_patient: bool = False,
    device: str = "auto",
    on_progress: Progress = no_progress,
) -> Comparison:
    """Find the lesions of two or more visits, and what is new, enlarging, disappeared and so on.

    Args:
        visits: FLAIR scans of one patient in time order.
        output: folder for the results; it holds one comparison.
        new_lesions: a model of two visits whose new lesions take the place of those found by
            following.
        same_patient: the visits are of one patient although their headers say otherwise.
        model, instances, threshold, min_peak, min_volume_mm3, min_extent_mm, extract_brain,
        device, on_progress: as for ``segment``.

    Returns:
        ``summary`` (a table, one row a visit, a column for each state), ``tracks``, ``page``,
        ``quality``.

    Raises:
        InputError: If a scan cannot be used, the visits do not belong together, or the folder
            holds something else.

    Example:
        >>> import lesionwise
        >>> visits = ["sub-01_ses-M00_FLAIR.nii.gz", "sub-01_ses-M12_FLAIR.nii.gz"]
        >>> result = lesionwise.compare(visits, "change")
        >>> int(result.summary["new"].iloc[-1])
        1
    """
    from lesionwise.run.compare import compare as run

    return run(
        _paths(visits),
        Path(output),
        model=_named(model),
        options=_find_options(
            instances, threshold, min_peak, min_volume_mm3, min_extent_mm, extract_brain
        ),
        new_lesions=None if new_lesions is None else _named(new_lesions),
        same_patient=same_patient,
        device=device,
        progress=on_progress,
    )


def split(
    maps: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    method: defaults.Separation = defaults.SPLIT_METHOD,
    threshold: float = defaults.THRESHOLD,
    connectivity: int | None = None,
    min_volume_mm3: float = defaults.MIN_VOLUME_MM3,
    min_extent_mm: float = defaults.MIN_EXTENT_MM,
    on_progress: Progress = no_progress,
) -> SplitResult:
    """Separate the lesions of another tool's masks or probability maps. Needs no torch.

    Args:
        maps: masks (0 and one other value) or probabilities from 0 to 1; one or several.
        output: folder for instance maps and tables.
        method: ``acls`` separates touching lesions, ``cc`` takes connected components;
            ``offsets`` needs a network's maps and is refused.
        threshold: lesion is probability > threshold.
        connectivity: 6, 18 or 26; None is the project's default, 26.
        min_volume_mm3, min_extent_mm: smaller lesions are dropped; 0 keeps them.
        on_progress: called with stage, done and total.

    Returns:
        ``summary`` (a table, one row a map), ``written`` (paths), ``failures`` (reason by file).

    Raises:
        InputError: If an option is wrong, or a single map cannot be used.

    Example:
        >>> import lesionwise
        >>> result = lesionwise.split("lesion_mask.nii.gz", "instances", method="cc")
        >>> int(result.summary["lesions"].sum())
        2
    """
    from lesionwise.run.split import split as run

    return run(
        _paths(maps),
        Path(output),
        method=method,
        threshold=threshold,
        connectivity=connectivity,
        min_volume_mm3=min_volume_mm3,
        min_extent_mm=min_extent_mm,
        progress=on_progress,
    )


def evaluate(
    reference: PathLike | Sequence[PathLike],
    predictions: PathLike | Sequence[PathLike],
    output: PathLike | None = None,
    *,
    names: Sequence[str] = (),
    options: Options | None = None,
    kind: Literal["auto", "mask", "instances"] = "auto",
    images: PathLike | None = None,
    patients: PathLike | None = None,
    figures: bool = False,
    workers: int = 1,
    seed: int = 0,
    on_progress: Progress = no_progress,
) -> Evaluation:
    """Score predictions against a reference with every metric, and compare methods. Needs no torch.

    Args:
        reference: a file or a folder; several are raters, and their consensus is the reference.
        predictions: a file or folder, or one for each method.
        output: folder for tables and a page; None writes nothing.
        names: of the methods, in the order of the predictions.
        options: matching, size limits and definitions (``lesionwise.metrics.case.Options``).
        kind: what the files hold; "auto" decides file by file.
        images: scans for the page.
        patients: a table with the columns case and patient.
        figures: also write every chart as SVG and PDF.
        workers: processes. More than one needs a script that guards its start with
            ``if __name__ == "__main__"``.
        seed: of the bootstrap.
        on_progress: called with stage, done and total.

    Returns:
        ``cases``, ``failures``, ``notes``, ``page``, and ``tables()``, the tables by title.

    Raises:
        InputError: If no case can be scored.

    Example:
        >>> import lesionwise
        >>> result = lesionwise.evaluate("lesion_mask.nii.gz", "lesion_mask.nii.gz")
        >>> result.cases[0].result.values["dsc"]
        1.0
    """
    from lesionwise.run.evaluate import evaluate as run

    return run(
        _paths(reference),
        _paths(predictions),
        None if output is None else Path(output),
        names=names,
        options=options,
        kind=kind,
        images=None if images is None else Path(images),
        patients=None if patients is None else Path(patients),
        figures=figures,
        workers=workers,
        seed=seed,
        progress=on_progress,
    )


def train(
    recipe: PathLike,
    dataset: PathLike,
    output: PathLike,
    *,
    settings: Mapping[str, Any] | None = None,
    fold: int | None = None,
    folds: int = defaults.FOLDS,
    validation_subjects: Sequence[str] | None = None,
    auxiliary: Mapping[str, PathLike] | None = None,
    initial: PathLike | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    on_progress: Progress = no_progress,
) -> Path:
    """Train a recipe on a BIDS data set; the same call again continues where it stopped.

    Args:
        recipe: a shipped recipe's name (``recipe_names``), with ``:reduced`` for its small form,
            or a ``.py`` file.
        dataset: BIDS folder with lesion masks or instances, or a folder of prepared arrays.
        output: run folder; ``segment`` and ``predict`` take it as model.
        settings: values of the recipe that differ, by name.
        fold, folds: which of how many parts validates.
        validation_subjects: who validates, instead of a fold; an empty list trains on all.
        auxiliary: further data sets by name, for recipes that take them.
        initial: a run or weights file to begin with (fine-tuning).
        max_minutes: wall time for learning.
        max_steps: most optimizer steps of each network.
        seed: of every random choice.
        device: "auto", "cpu", "cuda", "cuda:0,1" …
        workers: processes that prepare studies and batches.
        on_progress: called with stage, done and total.

    Returns:
        The run folder.

    Raises:
        InputError: If data or a setting cannot be used, or the folder holds a run with others.

    Example:
        >>> import lesionwise
        >>> run = lesionwise.train(
        ...     "unet-cc", "patients", "run", settings={"method.optimization.epochs": 5}
        ... )
    """
    from lesionwise.run.train import train as run

    return run(
        _named(recipe),
        Path(dataset),
        Path(output),
        overrides=_overrides(settings),
        fold=fold,
        folds=folds,
        validation_subjects=validation_subjects,
        auxiliary={name: Path(path) for name, path in (auxiliary or {}).items()},
        initial=None if initial is None else Path(initial),
        max_minutes=max_minutes,
        max_steps=max_steps,
        seed=seed,
        device=device,
        workers=workers,
        progress=on_progress,
    )


def predict(
    run: PathLike,
    scans: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    device: str = "auto",
    trust_recipe: bool = False,
    same_patient: bool = False,
    on_progress: Progress = no_progress,
) -> PredictResult:
    """Apply a trained run with its recipe's own settings: to each scan, or to each pair of visits.

    Args:
        run: a run folder of ``train``, or a shipped model's name.
        scans: as for ``segment``. For a recipe of two visits, scans of two or more visits.
        output: folder for the results.
        device: "auto", "cpu", "cuda" …
        trust_recipe: let the recipe file inside the run execute.
        same_patient: visits of a pair are of one patient although their headers say otherwise.
        on_progress: called with stage, done and total.

    Returns:
        ``summary`` (a table, one row a scan or pair) and ``failures`` (reason by file or pair).

    Raises:
        InputError: If the run or a single scan cannot be used, or as for ``segment``.

    Example:
        >>> import lesionwise
        >>> result = lesionwise.predict("run", "sub-01_FLAIR.nii.gz", "predicted")
        >>> result.failures
        {}
    """
    from lesionwise.run.predict import predict as apply

    return apply(
        _named(run),
        _paths(scans),
        Path(output),
        device=device,
        trust_recipe=trust_recipe,
        same_patient=same_patient,
        progress=on_progress,
    )


def benchmark(
    dataset: PathLike,
    recipes: Sequence[PathLike],
    output: PathLike,
    *,
    folds: int = defaults.FOLDS,
    settings: Mapping[str, Any] | None = None,
    auxiliary: Mapping[str, PathLike] | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    on_progress: Progress = no_progress,
) -> BenchmarkResult:
    """Cross-validate recipes on one data set and compare them; the same call again continues.

    Args:
        dataset: BIDS folder with lesion masks or instances.
        recipes: names or ``.py`` files.
        output: folder for the leaderboard, tables, predictions and runs.
        folds: at most one per patient.
        settings: values by name (in every recipe that has it) or ``recipe:name`` (in one).
        auxiliary, max_minutes, max_steps, seed, device, workers, on_progress: as for ``train``.

    Returns:
        ``table`` (one row a recipe), ``failures``, ``page``.

    Raises:
        InputError: If a recipe is unknown, a setting fits none, or the data cannot be split.

    Example:
        >>> import lesionwise
        >>> board = lesionwise.benchmark("pairs", ["subtraction-threshold"], "board", folds=2)
        >>> table = board.table
    """
    from lesionwise.run.benchmark import benchmark as run

    return run(
        Path(dataset),
        [_named(recipe) for recipe in recipes],
        Path(output),
        folds=folds,
        overrides=_overrides(settings),
        auxiliary={name: Path(path) for name, path in (auxiliary or {}).items()},
        max_minutes=max_minutes,
        max_steps=max_steps,
        seed=seed,
        device=device,
        workers=workers,
        progress=on_progress,
    )


def search(
    recipe: PathLike,
    dataset: PathLike,
    output: PathLike,
    grid: Mapping[str, Sequence[Any]],
    *,
    compare: int = defaults.COMPARED_MODELS,
    settings: Mapping[str, Any] | None = None,
    validation_subjects: Sequence[str] | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    on_progress: Progress = no_progress,
) -> SearchResult:
    """Train a recipe with every combination of settings; compare the best by all metrics.

    Args:
        recipe: name or ``.py`` file.
        dataset: as for ``train``.
        output: folder for the runs and ``search.tsv``.
        grid: values by the name of the setting; the last one varies fastest.
        compare: how many models, by validation Dice, are compared by all metrics.
        settings: further settings of all runs.
        validation_subjects, max_minutes, max_steps, seed, device, workers, on_progress: as for
            ``train``.

    Returns:
        ``table`` (one row a combination), ``best`` (its run folder), ``failures``.

    Raises:
        InputError: If a setting is wrong, nothing validates, or every combination fails.

    Example:
        >>> import lesionwise
        >>> grid = {"method.optimization.learning_rate": [1e-4, 1e-3]}
        >>> best = lesionwise.search("unet-cc", "patients", "search", grid).best
    """
    from lesionwise.run.search import search as run

    return run(
        _named(recipe),
        Path(dataset),
        Path(output),
        {name: [str(value) for value in values] for name, values in grid.items()},
        compare=compare,
        overrides=_overrides(settings),
        validation_subjects=validation_subjects,
        max_minutes=max_minutes,
        max_steps=max_steps,
        seed=seed,
        device=device,
        workers=workers,
        progress=on_progress,
    )


def simulate_patients(
    output: PathLike,
    patients: int,
    *,
    visits: int = 2,
    seed: int = 0,
    style: Style = "realistic",
    with_skull: bool = True,
    registered: bool = False,
    lesion_load: float = 1.0,
    lesion_change: float = 1.0,
    new_scanner: bool = False,
    spacing_mm: tuple[float, float, float] | None = None,
    caps: bool = False,
    workers: int = 1,
    on_progress: Progress = no_progress,
) -> Path:
    """Write simulated patients with known lesions as a BIDS data set.

    Args:
        output: folder of the data set; patients that are there are kept.
        patients: how many.
        visits: of each patient.
        seed: the same seed gives the same patients.
        style: "realistic", "randomized" contrasts for training, or "clinical" with thick slices.
        with_skull: False leaves out all that is not brain.
        registered: visits lie in one space.
        lesion_load, lesion_change: times the ordinary number and change of lesions.
        new_scanner: later visits come from another scanner.
        spacing_mm: voxel size along i, j, k; None draws it.
        caps: bright caps and bands around the ventricles, which are normal and no lesions.
        workers: processes; each needs about 3 GB.
        on_progress: called with stage, done and total.

    Returns:
        The folder. The truth is in ``derivatives/truth``.

    Raises:
        InputError: If the folder cannot be written or holds another data set.

    Example:
        >>> import lesionwise
        >>> folder = lesionwise.simulate_patients("simulated", 2, visits=2, seed=7)
    """
    from lesionwise.run.simulate import simulate as run

    return run(
        Path(output),
        patients,
        visits,
        seed,
        style=style,
        with_skull=with_skull,
        registered=registered,
        lesion_load=lesion_load,
        lesion_change=lesion_change,
        new_scanner=new_scanner,
        spacing_mm=spacing_mm,
        caps=caps,
        workers=workers,
        progress=on_progress,
    )


def process_cohort(
    bids_dir: PathLike,
    output_dir: PathLike,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    model: PathLike = defaults.MODEL,
    instances: defaults.Separation | None = None,
    longitudinal: bool = True,
    extract_brain: bool = True,
    device: str = "auto",
    workers: int | None = None,
    on_progress: Progress = no_progress,
) -> Group:
    """``segment`` and ``compare`` for every subject of a BIDS data set, then one table and page.

    The same call again continues after an interruption. It starts processes, so a script guards its
    start with ``if __name__ == "__main__"``. Needs the extra ``cluster``.

    Args:
        bids_dir: the data set.
        output_dir: folder for the results.
        participants, sessions: labels to take; all if empty.
        model, instances, extract_brain, device, on_progress: as for ``segment``.
        longitudinal: False segments each visit and compares none.
        workers: processes; None takes one per core as memory allows.

    Returns:
        ``scans`` and ``participants`` (tables), ``failures``, ``page``.

    Raises:
        InputError: If the settings or the folder are wrong, or no subject gives results.

    Example:
        >>> import lesionwise
        >>> cohort = lesionwise.process_cohort("study", "derivatives", workers=1)
        >>> patients = len(cohort.participants)
    """
    from lesionwise.cohort.cluster import Workers
    from lesionwise.cohort.group import group
    from lesionwise.cohort.participant import participant

    participant(
        Path(bids_dir),
        Path(output_dir),
        participants=participants,
        sessions=sessions,
        model=_named(model),
        instances=instances,
        brain_extraction=extract_brain,
        longitudinal=longitudinal,
        device=device,
        workers=Workers(workers),
        progress=on_progress,
    )
    return group(Path(output_dir), on_progress)


def export(
    dataset: PathLike,
    output: PathLike,
    *,
    scans: Sequence[str] = ("flair",),
    visits: int = 1,
    task: str = "lesions",
    on_progress: Progress = no_progress,
) -> ExportResult:
    """Write a BIDS data set as an nnU-Net raw data set, with splits by patient.

    Args:
        dataset: BIDS folder.
        output: a folder called like ``Dataset001_Lesions`` that does not exist yet.
        scans: channels of a visit, in order.
        visits: 1, or 2 for every two visits that follow each other.
        task: ``lesions``, or ``new`` for new lesions, which needs two visits.
        on_progress: called with stage, done and total.

    Returns:
        ``folder``, names of the ``training`` and ``test`` cases, ``failures``.

    Raises:
        InputError: If the options do not fit together, or nothing can be written.

    Example:
        >>> import lesionwise
        >>> result = lesionwise.export("patients", "Dataset001_Lesions")
        >>> result.training
        ('01_M00',)
    """
    from lesionwise.run.export import export as run

    return run(
        Path(dataset), Path(output), scans=scans, visits=visits, task=task, progress=on_progress
    )


def rebuild_pages(output: PathLike, *, on_progress: Progress = no_progress) -> PageResult:
    """Make the pages of a results folder again from its files.

    Args:
        output: a folder of ``segment``, ``compare``, ``predict``, ``evaluate``, ``benchmark`` or of
            a cohort, which gives the pages of all subjects and the one over all.
        on_progress: called with stage, done and total.

    Returns:
        ``pages`` (the one to open comes last) and ``failures``.

    Raises:
        InputError: If the folder holds no results.

    Example:
        >>> import lesionwise
        >>> page = lesionwise.rebuild_pages("out").pages[-1]
    """
    from lesionwise.cohort.report import report as run

    return run(Path(output), on_progress)


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted; ``train`` and ``benchmark`` take them.

    Example:
        >>> import lesionwise
        >>> "conflunet" in lesionwise.recipe_names()
        True
    """
    from lesionwise.run.recipes import recipe_names as names

    return names()


def model_names() -> list[str]:
    """Names of the shipped models, sorted; ``segment``, ``compare`` and ``predict`` take them.

    Example:
        >>> import lesionwise
        >>> lesionwise.model_names()
        ['conflunet', 'unet-cc']
    """
    from lesionwise.run.load_model import model_names as names

    return names()


def _paths(given: PathLike | Sequence[PathLike]) -> list[Path]:
    """One path or several as a list of paths."""
    several = [given] if isinstance(given, str | os.PathLike) else given
    return [Path(path) for path in several]


def _named(given: PathLike) -> str:
    """A name or a path as text: its separators tell a path from a name."""
    return os.fspath(given)


def _find_options(
    instances: defaults.Separation | None,
    threshold: float | None,
    min_peak: float | None,
    min_volume_mm3: float | None,
    min_extent_mm: float | None,
    extract_brain: bool,
) -> FindOptions:
    from lesionwise.run.find_lesions import FindOptions

    return FindOptions(
        instances=instances,
        also=defaults.SEPARATIONS,
        threshold=threshold,
        min_peak=min_peak,
        min_volume_mm3=min_volume_mm3,
        min_extent_mm=min_extent_mm,
        extract_brain=extract_brain,
    )


def _overrides(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the texts that commands take, such as ``method.optimization.epochs=5``."""
    return [f"{name}={value}" for name, value in (settings or {}).items()]
