"""Arguments of the commands, handed to the functions that do the work.

Each command imports its function when it runs, so that ``lesionwise --help`` and
``lesionwise evaluate`` never wait for torch.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

import lesionwise
from lesionwise import defaults, types
from lesionwise.defaults import Separation
from lesionwise.printing import (
    add_output_options,
    escape_unknown_characters,
    progress_shown,
    results,
    show,
    show_failures,
    show_json,
    show_line,
    show_model,
    show_models,
    show_note,
    show_page,
    show_quality,
    show_recipe,
    show_recipes,
)

app = typer.Typer(
    help="Finds, separates, measures and follows multiple-sclerosis lesions on brain MRI.",
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes cut option names at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
INTERRUPTED = (130, 143)
"""Exit status after Ctrl-C, as Typer makes it, and after SIGTERM."""


def main() -> None:
    """Run the command line; bad input gives one line and exit status 2.

    Python looks for garbage neither while modules are loaded, until ``at_work``, nor when it ends:
    both make or leave nothing but what stays, and take a second together.
    """
    gc.disable()
    try:
        _run()
    finally:
        gc.freeze()


@contextmanager
def at_work() -> Iterator[types.Progress]:
    """Progress of the work that begins here; garbage among what it makes is collected."""
    gc.freeze()
    gc.enable()
    with progress_shown() as progress:
        yield progress


def _run() -> None:
    escape_unknown_characters()
    arguments = _numbers_apart(sys.argv[1:])
    if arguments[:1] == ["cohort"]:
        from lesionwise.cohort.arguments import one_label_an_option

        arguments = one_label_an_option(arguments)
    try:
        app(arguments)
    except types.InputError as error:
        _end_with(error)
    except OSError as error:
        from lesionwise.io.files import file_system_error

        readable = file_system_error(error, "the output folder")
        if readable is None:
            raise
        _end_with(readable)
    except SystemExit as end:
        if end.code in INTERRUPTED:
            show_note("lesionwise: interrupted; the same command continues from here")
        raise


def _numbers_apart(arguments: Sequence[str]) -> list[str]:
    """``--spacing 2,2,2`` and ``--spacing=2,2,2`` as ``--spacing 2 2 2``."""
    apart: list[str] = []
    for argument in arguments:
        name, sign, value = argument.partition("=")
        if name == "--spacing" and sign:
            apart += [name, *value.split(",")]
        elif apart[-1:] == ["--spacing"]:
            apart += argument.split(",")
        else:
            apart.append(argument)
    return apart


def _end_with(error: types.InputError) -> NoReturn:
    show_note(f"lesionwise: {error}")
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        results.print(lesionwise.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Output = Annotated[
    Path, typer.Option("-o", "--output", help="Folder for the results.", readable=False)
]
Model = Annotated[
    str,
    typer.Option(
        help="A shipped model (see `lesionwise models`), a run folder of `train`, or nnunet:DIR, "
        "where DIR is the folder with plans.json of a model of nnU-Net."
    ),
]
Device = Annotated[str, typer.Option(help="Where networks run: auto, cpu, cuda, cuda:1 …")]
TrustRecipe = Annotated[
    bool,
    typer.Option(
        "--trust-recipe",
        help="Allow the recipe file in the run folder to execute. It is a Python program.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.", min=0)]
SeriesName = Annotated[
    str | None, typer.Option(help="The DICOM series to read, by a part of its description.")
]
Workers = Annotated[int, typer.Option(help="Number of processes.", min=1)]
LoaderWorkers = Annotated[
    int,
    typer.Option(
        "--workers", help="Number of processes that prepare scans and load batches; 0: none.", min=0
    ),
]
Scans = Annotated[
    list[Path],
    typer.Argument(
        help="NIfTI files, DICOM series folders, folders of scans, or BIDS data sets.",
        readable=False,
    ),
]
Instances = Annotated[
    Separation | None,
    typer.Option(help="Instance separation method (default: the model's own)."),
]
BrainExtraction = Annotated[
    bool,
    typer.Option(help="Find the brain in each scan; off for scans whose skull has been removed."),
]
Connectivity = Annotated[
    int | None,
    typer.Option(help="Connectivity of lesions: 6, 18 or 26 neighbors (default: 26)."),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        help="Time limit of each training (minutes); the learning rate schedule is fitted to it."
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Most optimizer steps of each network; the schedule is fitted to it."),
]
SamePatient = Annotated[
    bool,
    typer.Option(
        "--same-patient", help="The visits are of one patient, even if their headers disagree."
    ),
]
Auxiliary = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=DATA: a further data set that the recipe learns from under this name "
        "(repeatable)."
    ),
]


def _loaded(model: Any, device: str, trust_recipe: bool) -> Any:
    """The model, loaded if its recipe file may execute."""
    if model is None or not trust_recipe:
        return model
    from lesionwise.run.load_model import load_model

    return load_model(model, device, trust_recipe=True)


@app.command()
def demo(
    output: Output = Path("out/demo"),
    seed: Seed = defaults.DEMO_SEED,
    device: Device = "auto",
    model: Model = defaults.MODEL,
) -> None:
    """Simulate patients, find and follow their lesions, score, show.

    The patients have two visits each.
    """
    from lesionwise.run.demo import demo as run

    with at_work() as progress:
        done = run(output, seed=seed, device=device, model=model, progress=progress)
    show_quality(done.quality)
    for title, table in done.tables.items():
        show(table, title)
    show_page(done.clinical_page)
    show_page(done.page)


@app.command()
def segment(
    scans: Scans,
    output: Output,
    model: Model = defaults.MODEL,
    trust_recipe: TrustRecipe = False,
    instances: Instances = None,
    scan: Annotated[
        list[str] | None,
        typer.Option(
            "--scan",
            help="NAME=FILE: a further scan that the model needs, such as t1w=T1.nii.gz "
            "(repeatable).",
        ),
    ] = None,
    brain_mask: Annotated[
        Path | None,
        typer.Option(help="A brain mask on the scan's grid (one scan only).", readable=False),
    ] = None,
    brain_extraction: BrainExtraction = True,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="The mask is probability > threshold (default: the model's own).",
            min=0,
            max=1,
        ),
    ] = None,
    min_peak: Annotated[
        float | None,
        typer.Option(
            help="Drop lesions whose highest probability is below this, also from the mask "
            "(default: the model's own).",
            min=0,
            max=1,
        ),
    ] = None,
    min_volume: Annotated[
        float | None,
        typer.Option(
            help="Drop lesions below this volume in mm³ (default: the model's own).", min=0
        ),
    ] = None,
    min_extent: Annotated[
        float | None,
        typer.Option(
            help="Drop lesions shorter than this along any voxel axis, in mm (default: the "
            "model's own).",
            min=0,
        ),
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Process finished scans again.")] = False,
    series: SeriesName = None,
    dicom_seg: Annotated[
        bool | None,
        typer.Option(help="Also write DICOM segmentations (default: for DICOM series)."),
    ] = None,
    pattern: Annotated[
        str, typer.Option(help="Pattern of the scans in a folder, such as '**/FLAIR*.nii.gz'.")
    ] = "",
) -> None:
    """Find and separate the lesions of one or many FLAIR scans."""
    from lesionwise.io.scans import select_scans
    from lesionwise.run.find_lesions import FindOptions
    from lesionwise.run.segment import segment as run

    options = FindOptions(
        instances=instances,
        also=defaults.SEPARATIONS,
        threshold=threshold,
        min_peak=min_peak,
        min_volume_mm3=min_volume,
        min_extent_mm=min_extent,
        extract_brain=brain_extraction,
    )
    if any(path.is_dir() for path in scans):
        for line in select_scans(scans, pattern=pattern).lines():
            show_note(line)
    with at_work() as progress:
        done = run(
            scans,
            output,
            pattern=pattern,
            further=_named_files(scan or ()),
            model=_loaded(model, device, trust_recipe),
            options=options,
            brain_mask=brain_mask,
            device=device,
            overwrite=overwrite,
            series=series,
            dicom_seg=dicom_seg,
            progress=progress,
        )
    show_quality(done.quality)
    show(done.summary)
    show_page(done.page)
    _exit_on_failures(done.failures)


@app.command()
def compare(
    visits: Annotated[
        list[Path],
        typer.Argument(help="FLAIR scan of the baseline, then of each follow-up.", readable=False),
    ],
    output: Output,
    model: Model = defaults.MODEL,
    trust_recipe: TrustRecipe = False,
    instances: Instances = None,
    brain_extraction: BrainExtraction = True,
    new_lesions: Annotated[
        str | None,
        typer.Option(
            help="A run of `train` with a recipe of two visits, such as pre-unet, that finds the "
            "new lesions."
        ),
    ] = None,
    lesions: Annotated[
        list[Path] | None,
        typer.Option(
            help="A mask or probability map of another tool, instead of a model; once per visit, "
            "in the order of the visits: --lesions M1.nii.gz --lesions M2.nii.gz.",
            readable=False,
        ),
    ] = None,
    device: Device = "auto",
    series: SeriesName = None,
    dicom_seg: Annotated[
        bool, typer.Option(help="Also write DICOM segmentations, for visits that are DICOM series.")
    ] = True,
    same_patient: SamePatient = False,
    registered: Annotated[
        bool,
        typer.Option(
            "--registered",
            help="Also write each registered follow-up, its subtraction and its transform.",
        ),
    ] = False,
) -> None:
    """Find what changed between visits, lesion by lesion.

    Lesions are new, enlarging, shrinking, merged, split, disappeared, stable or equivocal.
    """
    from lesionwise.run.compare import compare as run
    from lesionwise.run.find_lesions import FindOptions

    options = FindOptions(
        instances=instances,
        also=defaults.SEPARATIONS,
        extract_brain=brain_extraction,
    )
    with at_work() as progress:
        done = run(
            visits,
            output,
            model=_loaded(model, device, trust_recipe),
            options=options,
            new_lesions=_loaded(new_lesions, device, trust_recipe),
            lesions=lesions or (),
            device=device,
            series=series,
            dicom_seg=dicom_seg,
            same_patient=same_patient,
            registered=registered,
            progress=progress,
        )
    show_quality(done.quality)
    show(done.summary)
    show_page(done.page)


@app.command()
def split(
    maps: Annotated[
        list[Path], typer.Argument(help="Masks or probability maps of any tool.", readable=False)
    ],
    output: Output,
    method: Annotated[
        Separation, typer.Option(help="Instance separation method: acls or cc.")
    ] = defaults.SPLIT_METHOD,
    threshold: Annotated[
        float,
        typer.Option(
            help="The mask of a probability map is probability > threshold.", min=0, max=1
        ),
    ] = defaults.THRESHOLD,
    connectivity: Connectivity = None,
    min_volume: Annotated[
        float, typer.Option(help="Drop lesions below this volume, in mm³.", min=0)
    ] = defaults.MIN_VOLUME_MM3,
    min_extent: Annotated[
        float,
        typer.Option(help="Drop lesions shorter than this along any voxel axis, in mm.", min=0),
    ] = defaults.MIN_EXTENT_MM,
    scan: Annotated[
        list[Path] | None,
        typer.Option(
            help="The FLAIR scan of each map, in the order of the maps, or the folder of scans of "
            "a folder of maps, paired by name. Adds a page, locations and intensities "
            "(repeatable).",
            readable=False,
        ),
    ] = None,
    brain_extraction: BrainExtraction = True,
) -> None:
    """Separate the lesions of another tool's mask or probability map."""
    from lesionwise.run.split import split as run

    if scan:
        _split_on_scans(
            maps,
            scan,
            output,
            method=method,
            threshold=threshold,
            connectivity=connectivity,
            min_volume_mm3=min_volume,
            min_extent_mm=min_extent,
            extract_brain=brain_extraction,
        )
        return
    with at_work() as progress:
        done = run(
            maps,
            output,
            method=method,
            threshold=threshold,
            connectivity=connectivity,
            min_volume_mm3=min_volume,
            min_extent_mm=min_extent,
            progress=progress,
        )
    show(done.summary)
    _exit_on_failures(done.failures)


@app.command()
def simulate(
    output: Output,
    patients: Annotated[int, typer.Option(help="Number of patients.", min=1)] = 1,
    visits: Annotated[int, typer.Option(help="Visits per patient.", min=1)] = 2,
    seed: Seed = 0,
    style: Annotated[
        Literal["realistic", "randomized", "clinical"],
        typer.Option(
            help="Realistic FLAIR contrast, random contrasts, or clinical scans: thick slices and "
            "bright fat."
        ),
    ] = "realistic",
    skull: Annotated[bool, typer.Option(help="Off: everything outside of the brain is 0.")] = True,
    registered: Annotated[
        bool, typer.Option(help="All visits of a patient on one grid and in one position.")
    ] = False,
    lesion_load: Annotated[
        float, typer.Option(help="Multiplies the number of lesions.", min=0)
    ] = 1.0,
    lesion_change: Annotated[
        float,
        typer.Option(
            help="Multiplies the rate of lesion changes; 0: all lesions are stable.", min=0
        ),
    ] = 1.0,
    new_scanner: Annotated[
        bool, typer.Option(help="Another contrast and protocol at every visit.")
    ] = False,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size in mm, such as 1,1,3 (default: drawn for each patient)."),
    ] = None,
    lesion_masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real lesion masks on the MNI152 grid, used instead of random lesions.",
            readable=False,
        ),
    ] = None,
    tissue_maps: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real tissue maps (*_dseg.nii.gz and dseg.tsv), used for the heads "
            "instead of the template.",
            readable=False,
        ),
    ] = None,
    caps: Annotated[
        bool,
        typer.Option(
            help="Bright caps and bands around the ventricles that are normal, not lesions."
        ),
    ] = False,
    raters: Annotated[
        int, typer.Option(help="Number of raters who outline the last visit's new lesions.", min=0)
    ] = 0,
    workers: Workers = 1,
) -> None:
    """Simulate patients with known lesions, as a BIDS data set."""
    from lesionwise.run.simulate import simulate as run

    with at_work() as progress:
        run(
            output,
            patients,
            visits,
            seed,
            style=style,
            with_skull=skull,
            registered=registered,
            lesion_load=lesion_load,
            lesion_change=lesion_change,
            new_scanner=new_scanner,
            spacing_mm=spacing,
            lesion_masks=lesion_masks,
            tissue_maps=tissue_maps,
            caps=caps,
            raters=raters,
            workers=workers,
            progress=progress,
        )
    show_line(f"{patients} patients in {output}")


@app.command()
def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="REFERENCE PREDICTION [PREDICTION …]: files or folders, with masks or instances.",
            readable=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for tables and page.", readable=False),
    ] = None,
    rater: Annotated[
        list[Path] | None,
        typer.Option(
            help="The reference of a further rater; predictions are scored against the consensus "
            "(repeatable).",
            readable=False,
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Name of a prediction, in their order (repeatable).")
    ] = None,
    matching: Annotated[
        Literal["greedy", "greedy_pairs", "optimal"],
        typer.Option(help="How predicted lesions are matched to reference lesions."),
    ] = defaults.MATCHING,
    iou_threshold: Annotated[
        float,
        typer.Option(
            help="A pair of lesions with an IoU above this counts as found.", min=0, max=1
        ),
    ] = defaults.IOU_THRESHOLD,
    connectivity: Connectivity = None,
    min_volume: Annotated[
        float, typer.Option(help="Lesions below this volume, in mm³, do not count.", min=0)
    ] = 0.0,
    min_extent: Annotated[
        float, typer.Option(help="Lesions shorter than this, in mm, do not count.", min=0)
    ] = 0.0,
    empty: Annotated[
        Literal["agreement", "undefined"],
        typer.Option(
            help="Score if reference and prediction are both empty: perfect or undefined."
        ),
    ] = defaults.EMPTY_SIDES,
    hd95: Annotated[
        Literal["larger_directed", "pooled", "area_weighted"],
        typer.Option(help="Definition of hd95_mm; see docs/guide/metrics.md."),
    ] = defaults.HD95,
    assd: Annotated[
        Literal["pooled", "mean_of_directed", "larger_directed", "area_weighted"],
        typer.Option(help="Definition of assd_mm; see docs/guide/metrics.md."),
    ] = defaults.ASSD,
    surface_tolerance: Annotated[
        float, typer.Option(help="Tolerance of surface_dice, in mm.", min=0)
    ] = defaults.SURFACE_TOLERANCE_MM,
    kind: Annotated[
        Literal["auto", "mask", "instances"],
        typer.Option(help="What the files are: masks, or instances (one label per lesion)."),
    ] = "auto",
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="N, reference=N or prediction=N: the label that marks lesions (repeatable)."
        ),
    ] = None,
    consensus: Annotated[
        Literal["majority", "staple"],
        typer.Option(help="How several raters are combined into one reference."),
    ] = defaults.CONSENSUS,
    slices: Annotated[bool, typer.Option(help="Also score each slice.")] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The scans, for pictures of the best, median and worst case.", readable=False
        ),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            help="Table with the columns case and patient, for file names that are not BIDS.",
            readable=False,
        ),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Also write every chart as SVG and PDF.")] = False,
    seed: Seed = 0,
    workers: Annotated[
        int | None, typer.Option(help="Number of processes (default: one per core).", min=1)
    ] = None,
) -> None:
    """Score predictions against a reference.

    Several predictions are also compared with each other.
    """
    from lesionwise.instances.components import DEFAULT_CONNECTIVITY
    from lesionwise.metrics.case import Options
    from lesionwise.run.evaluate import SliceOptions
    from lesionwise.run.evaluate import evaluate as run
    from lesionwise.run.label_maps import labels_of

    if len(paths) < 2:
        raise types.InputError("evaluate: name a reference and at least one prediction")
    options = Options(
        matching=matching,
        iou_threshold=iou_threshold,
        connectivity=connectivity or DEFAULT_CONNECTIVITY,
        min_volume_mm3=min_volume,
        min_extent_mm=min_extent,
        empty=empty,
        hd95=hd95,
        assd=assd,
        surface_tolerance_mm=surface_tolerance,
    )
    with at_work() as progress:
        done = run(
            paths[0] if not rater else [paths[0], *rater],
            paths[1:],
            output,
            options=options,
            kind=kind,
            label=labels_of(label or ()),
            consensus=consensus,
            slices=SliceOptions() if slices else None,
            names=name or (),
            images=images,
            patients=patients,
            figures=figures,
            workers=workers,
            seed=seed,
            progress=progress,
        )
    for title, table in done.tables().items():
        show(table, title)
    for note in done.notes:
        show_note(note)
    if done.page is not None:
        show_page(done.page)
    _exit_on_failures(done.failures)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(help="Name of a recipe (NAME:reduced: its reduced form), or a .py file."),
    ],
    dataset: Annotated[
        Path,
        typer.Argument(
            help="A BIDS or nnU-Net raw data set with lesion masks or instances.", readable=False
        ),
    ],
    output: Output,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE: change a setting, such as method.optimization.epochs=5 (repeatable).",
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="The fold that validates, counted from 0.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Number of folds.", min=2)] = defaults.FOLDS,
    validation: Annotated[
        list[str] | None, typer.Option(help="A validation subject, instead of a fold (repeatable).")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: LoaderWorkers = 0,
    max_minutes: MaxMinutes = None,
    max_steps: MaxSteps = None,
    prepared: Annotated[
        Path | None,
        typer.Option(help="Folder of prepared arrays that several runs share.", readable=False),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Use the weights of this run, without training.", readable=False
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(help="A run or a weights file to start from (fine-tuning).", readable=False),
    ] = None,
    auxiliary: Auxiliary = None,
) -> None:
    """Train a recipe.

    After an interruption, the same command continues.
    """
    from lesionwise.run.load_model import read_run
    from lesionwise.run.train import train as run
    from lesionwise.run.train import training_warning

    with at_work() as progress:
        done = run(
            recipe,
            dataset,
            output,
            overrides=setting or (),
            fold=fold,
            folds=folds,
            validation_subjects=validation,
            seed=seed,
            device=device,
            workers=workers,
            max_minutes=max_minutes,
            max_steps=max_steps,
            prepared=prepared,
            reuse=reuse,
            initial=initial,
            auxiliary=_data_sets(auxiliary or ()),
            progress=progress,
        )
    for name, error in read_run(done).get("left_out", {}).items():
        show_note(f"left out: {name}: {error}")
    if warning := training_warning(done):
        show_note(f"warning: {warning}")
    show_line(f"The run: {done}")


@app.command()
def benchmark(
    dataset: Annotated[
        Path, typer.Argument(help="A BIDS data set with lesion masks.", readable=False)
    ],
    output: Output,
    recipes: Annotated[
        str,
        typer.Option(
            "--recipes",
            help="Names or .py files, separated by commas, or all; NAME:reduced and all:reduced: "
            "the reduced forms.",
        ),
    ],
    folds: Annotated[
        int, typer.Option(help="Number of folds; as many folds as patients is leave-one-out.")
    ] = defaults.FOLDS,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE: change a setting of all recipes that have it, such as "
            "method.optimization.epochs=5; RECIPE:NAME=VALUE: of one recipe (repeatable).",
        ),
    ] = None,
    max_minutes: MaxMinutes = None,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: LoaderWorkers = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed folds again.")
    ] = False,
    auxiliary: Auxiliary = None,
) -> None:
    """Cross-validate recipes on one data set and compare them.

    After an interruption, the same command continues.
    """
    from lesionwise.run.benchmark import benchmark as run

    with at_work() as progress:
        done = run(
            dataset,
            _listed(recipes),
            output,
            folds=folds,
            overrides=setting or (),
            max_minutes=max_minutes,
            max_steps=max_steps,
            seed=seed,
            device=device,
            workers=workers,
            retry_failed=retry_failed,
            auxiliary=_data_sets(auxiliary or ()),
            progress=progress,
        )
    columns = ["recipe", "task", "cases", "dsc", "lesion_f1", "train_s", "predict_s", "peak_gb"]
    if len(set(done.table["task"])) == 1:
        columns.remove("task")
    show(done.table[[name for name in columns if name in done.table]])
    show_page(done.page)
    _exit_on_failures(done.failures)


@app.command()
def search(
    recipe: Annotated[
        str,
        typer.Argument(help="Name of a recipe (NAME:reduced: its reduced form), or a .py file."),
    ],
    dataset: Annotated[
        Path, typer.Argument(help="A BIDS data set with lesion masks.", readable=False)
    ],
    output: Output,
    grid: Annotated[
        list[str],
        typer.Option("--grid", help="NAME=VALUE,VALUE: the values of a setting (repeatable)."),
    ],
    compare: Annotated[
        int, typer.Option(help="How many of the best models to compare.", min=1)
    ] = defaults.COMPARED_MODELS,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: change a setting of all trainings (repeatable)."),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="A validation subject (repeatable).")
    ] = None,
    max_minutes: MaxMinutes = None,
    max_steps: MaxSteps = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: LoaderWorkers = 0,
) -> None:
    """Train a recipe with every combination of some settings.

    The best by validation are compared by all metrics.
    """
    from lesionwise.run.search import search as run

    given = _by_name(grid, "--grid", "VALUE,VALUE")
    values = {name.strip(): _listed(texts) for name, texts in given}
    with at_work() as progress:
        done = run(
            recipe,
            dataset,
            output,
            values,
            compare=compare,
            overrides=setting or (),
            validation_subjects=validation,
            seed=seed,
            device=device,
            workers=workers,
            max_minutes=max_minutes,
            max_steps=max_steps,
            progress=progress,
        )
    show(done.table)
    show_line(f"The best run: {done.best}")
    _exit_on_failures(dict(done.failures))


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="A run folder of `train`, or a shipped model.")],
    scans: Scans,
    output: Output,
    device: Device = "auto",
    trust_recipe: TrustRecipe = False,
    same_patient: SamePatient = False,
) -> None:
    """Apply a trained run to each scan or each pair of visits.

    The recipe's own settings are used.
    """
    from lesionwise.run.predict import predict as command

    with at_work() as progress:
        done = command(
            run,
            scans,
            output,
            device=device,
            trust_recipe=trust_recipe,
            same_patient=same_patient,
            progress=progress,
        )
    show(done.summary)
    _exit_on_failures(done.failures)


@app.command()
def cohort(
    bids_dir: Annotated[Path, typer.Argument(help="A BIDS data set.", readable=False)],
    output_dir: Annotated[Path, typer.Argument(help="Folder for the results.", readable=False)],
    level: Annotated[
        Literal["participant", "group"],
        typer.Argument(
            help="participant: process each subject; then group: tables and a page of all subjects."
        ),
    ],
    participant_label: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label",
            "--participant_label",
            help="Only these subjects (several names).",
        ),
    ] = None,
    session_label: Annotated[
        list[str] | None,
        typer.Option(
            "--session-label", "--session_label", help="Only these sessions (several names)."
        ),
    ] = None,
    model: Model = defaults.MODEL,
    instances: Instances = None,
    longitudinal: Annotated[
        bool, typer.Option(help="Compare the visits of a subject; off: only segment each visit.")
    ] = True,
    brain_extraction: BrainExtraction = True,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "--n-procs",
            "--n_procs",
            help="Number of processes (default: one per core, as far as memory allows).",
            min=1,
        ),
    ] = None,
    threads_per_worker: Annotated[
        int | None, typer.Option(help="Threads of each process.", min=1)
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Address of a running Dask scheduler, such as tcp://node1:8786."),
    ] = None,
    scheduler_file: Annotated[
        Path | None,
        typer.Option(help="The file that a running Dask scheduler wrote.", readable=False),
    ] = None,
    dashboard: Annotated[
        bool, typer.Option(help="Show Dask's dashboard, only on this machine (loopback address).")
    ] = False,
    skip_bids_validation: Annotated[
        bool,
        typer.Option(
            "--skip-bids-validation",
            "--skip_bids_validation",
            "--skip-bids-validator",
            "--skip_bids_validator",
            help="Has no effect: no BIDS validator is run.",
        ),
    ] = False,
) -> None:
    """Find the lesions of a whole BIDS data set.

    After an interruption, the same command continues.
    """
    del skip_bids_validation
    from lesionwise.cohort.cohort import cohort as run
    from lesionwise.cohort.stopping import Stopped

    try:
        with at_work() as progress:
            done = run(
                bids_dir,
                output_dir,
                level,
                participants=participant_label or (),
                sessions=session_label or (),
                model=model,
                instances=instances,
                brain_extraction=brain_extraction,
                longitudinal=longitudinal,
                device=device,
                workers=workers,
                threads_per_worker=threads_per_worker,
                dask=dask or "",
                scheduler_file=scheduler_file,
                dashboard=dashboard,
                progress=progress,
            )
    except Stopped as stop:
        raise typer.Exit(stop.status) from stop
    for note in done.notes:
        show_note(note)
    if done.message:
        show_line(done.message)
    if done.participants is not None:
        show(done.participants.head(20))
        if len(done.participants) > 20:
            show_line(f"… {len(done.participants)} patients in participants.tsv")
    if done.page is not None:
        show_page(done.page)
    _exit_on_failures(done.failures)


@app.command()
def export(
    dataset: Annotated[Path, typer.Argument(help="A BIDS data set.", readable=False)],
    output: Annotated[
        Path, typer.Argument(help="A new folder, such as Dataset001_Lesions.", readable=False)
    ],
    scans: Annotated[
        str, typer.Option(help="Scans that become channels, such as flair,t1w.")
    ] = "flair",
    visits: Annotated[
        int, typer.Option(help="Visits per case: 1, or 2 for baseline and follow-up.", min=1, max=2)
    ] = 1,
    task: Annotated[
        Literal["lesions", "new"], typer.Option(help="Lesions to label: all, or new ones.")
    ] = "lesions",
) -> None:
    """Write a data set as an nnU-Net raw data set."""
    from lesionwise.run.export import export as run

    with at_work() as progress:
        done = run(
            dataset,
            output,
            scans=_listed(scans),
            visits=visits,
            task=task,
            progress=progress,
        )
    for name, why in done.left_out.items():
        show_note(f"left out: {name}: {why}")
    counts = f"{len(done.training)} training and {len(done.test)} test cases"
    show_line(f"{counts} in {done.folder}")
    _exit_on_failures(done.failures)


@app.command()
def report(
    output: Annotated[
        Path,
        typer.Argument(
            help="A folder that segment, compare, predict, evaluate or cohort wrote.",
            readable=False,
        ),
    ],
    hide_face: Annotated[
        bool,
        typer.Option(
            "--hide-face", help="Show only the brain, even if the brain mask contains the face."
        ),
    ] = False,
) -> None:
    """Write the pages of a results folder again, from its files."""
    from lesionwise.cohort.report import report as run

    with at_work() as progress:
        done = run(output, progress, hide_face=hide_face)
    for page in done.pages:
        show_line(page)
    _exit_on_failures(done.failures)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="One recipe, with all its details.")] = None,
) -> None:
    """List the recipes, or show one.

    One is shown with its citation, settings and departures.
    """
    from lesionwise.run.recipes import recipes as run

    found = run(name)
    if name is None:
        show_recipes(found)
    else:
        show_recipe(found[0])


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="A shipped model, or a run folder of `train`.")
    ] = None,
    trust_recipe: TrustRecipe = False,
    as_json: Annotated[bool, typer.Option("--json", help="All details, as JSON.")] = False,
) -> None:
    """List the shipped models, or show one.

    One is shown with its settings, training, scores and licence.
    """
    from lesionwise.run.models import models as run

    found = run(name, trust_recipe=trust_recipe)
    if as_json:
        facts = [each.as_json() for each in found]
        show_json(facts if name is None else facts[0])
    elif name is None:
        show_models(found)
    else:
        show_model(found[0])


def _split_on_scans(
    maps: Sequence[Path], scans: Sequence[Path], output: Path, **options: Any
) -> None:
    """Lesions of other tools' maps on their scans, with pages."""
    from lesionwise.run.given import split_on_scans

    if options["method"] == "offsets":
        raise types.InputError("--method offsets: needs the offsets of a network; use acls or cc")
    with at_work() as progress:
        done = split_on_scans(maps, scans, output, progress=progress, **options)
    show_quality(done.quality)
    show(done.summary)
    show_page(done.page)
    _exit_on_failures(done.failures)


def _listed(names: str) -> tuple[str, ...]:
    """The parts between commas."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _by_name(texts: Sequence[str], option: str, value: str) -> Iterator[tuple[str, str]]:
    """Names and values of texts NAME=VALUE that an option was given."""
    for text in texts:
        name, sign, found = text.partition("=")
        if not (name and sign and found):
            raise types.InputError(f"{option} {text}: write it as NAME={value}")
        yield name, found


def _named_files(texts: Sequence[str]) -> dict[str, Path]:
    """``--scan NAME=FILE`` texts by name."""
    return {n.strip().lower(): Path(path) for n, path in _by_name(texts, "--scan", "FILE")}


def _data_sets(texts: Sequence[str]) -> dict[str, str]:
    """``--auxiliary NAME=DATA`` texts by name."""
    found: dict[str, str] = {}
    for name, data in _by_name(texts, "--auxiliary", "DATA"):
        if name in found:
            raise types.InputError(f"--auxiliary {name}={data}: {name} is given twice")
        found[name] = data
    return found


def _exit_on_failures(failures: Mapping[str, str]) -> None:
    show_failures(failures)
    if failures:
        raise typer.Exit(2)


add_output_options(app)

if __name__ == "__main__":
    main()
