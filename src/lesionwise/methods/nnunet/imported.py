"""Any trained nnU-Net model folder as a model: ``nnunet:DIR``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionwise.io.checked import read_checked
from lesionwise.methods.nnunet.workspace import quiet, require_nnunet
from lesionwise.types import InputError, Predictor, Progress, no_progress

UNREADABLE = (
    KeyError, TypeError, AttributeError, RuntimeError, ImportError, ValueError, IndexError,
    AssertionError, OverflowError,
)  # fmt: skip
"""What nnU-Net raises on plans that are not its own."""
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
"""The first of these that a fold holds is read."""

_SCANS = {
    "flair": "flair", "t2flair": "flair", "t1": "t1w", "t1w": "t1w", "mprage": "t1w",
    "t2": "t2w", "t2w": "t2w", "pd": "pd", "pdw": "pd", "t1ce": "t1ce", "t1gd": "t1ce",
    "t1c": "t1ce",
}  # fmt: skip
_VISITS = {"baseline": 0, "bl": 0, "tp1": 0, "followup": 1, "fu": 1, "tp2": 1}
_LESION = re.compile(r"lesion|plaque|\bms\b|wmh|hyperintens", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A trained nnU-Net model, and what it is applied to.

    Attributes:
        predictor: from a study as read to lesion maps.
        scans: of each visit, in order.
        visits: 1, or 2 for a model of new lesions.
        configuration: such as ``3d_fullres``.
        checkpoints: whose logits are averaged.
    """

    predictor: Predictor
    scans: tuple[str, ...]
    visits: int
    configuration: str
    checkpoints: tuple[Path, ...]


def load_nnunet_model(
    folder: str | Path,
    device: str = "auto",
    *,
    scans: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> ImportedModel:
    """A trained nnU-Net model folder, ready for studies as they are read.

    The folder holds ``plans.json``, ``dataset.json`` and ``fold_…/checkpoint_….pth``; the logits
    of all its folds are averaged. Checkpoints are read without running anything in them, and of
    networks and layers only those of dynamic-network-architectures and torch are built, whatever
    trainer they came from.

    The probability is that of the labels whose name speaks of lesions (lesion, plaque, MS, WMH),
    or of every label where none does. Channels are known by their names in ``dataset.json``
    (FLAIR, T1w …; ``FLAIR_baseline`` and ``FLAIR_followup`` make a model of two visits, which
    finds new lesions). Axes are given to the model as the nearest to RAS; one trained on files
    with another order of axes sees them turned.

    Args:
        folder: with or without the prefix ``nnunet:``.
        scans: names of the channels in order, where ``dataset.json`` uses others.
        progress: called with each window.

    Raises:
        InputError: If something is missing, malformed, unsafe to read, a cascade, or a network
            that the plans do not describe.
    """
    require_nnunet()
    root = Path(str(folder).removeprefix("nnunet:"))
    plans, dataset = _read(root / "plans.json"), _read(root / "dataset.json")
    names = _channels(root, dataset)
    per_visit, visits = _by_visit(root, names if scans is None else scans)
    lesions = _lesion_labels(root, dataset)
    found = tuple(_checkpoints(root))
    predictor, configuration = _predictor(root, plans, dataset, found, per_visit, lesions, device)
    predictor = replace(predictor, progress=progress)
    return ImportedModel(predictor, per_visit, visits, configuration, found)


def _predictor(
    root: Path,
    plans: dict[str, Any],
    dataset: dict[str, Any],
    found: tuple[Path, ...],
    scans: tuple[str, ...],
    lesions: tuple[int, ...],
    device: str,
) -> tuple[Any, str]:
    from lesionwise.inference.devices import device_of

    with quiet():
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from lesionwise.methods.nnunet.checkpoints import read_checkpoint, set_weights
        from lesionwise.methods.nnunet.networks import checked_axes, checked_network
        from lesionwise.methods.nnunet.predictor import NnunetPredictor

        read = [read_checkpoint(path) for path in found]
        try:
            configuration = read[0]["init_args"]["configuration"]
            manager = PlansManager(plans)
            settings = manager.get_configuration(configuration)
            if settings.previous_stage_name is not None:
                raise InputError(f"{root}: a cascade, which needs another model first")
            segments = manager.get_label_manager(dataset).num_segmentation_heads
            mirrored = read[0].get("inference_allowed_mirroring_axes")
            axes = checked_axes(mirrored, settings, found[0])
            networks = []
            chosen = device_of(device)
            for path, checkpoint in zip(found, read, strict=True):
                channels = len(dataset["channel_names"])
                network = checked_network(settings, channels, segments, root / "plans.json")
                set_weights(network, checkpoint["network_weights"], str(path))
                networks.append(network.to(chosen).eval())
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(f"{root}: not a model that can be read ({error!r:.200})") from error
    predictor = NnunetPredictor(
        plans=plans,
        dataset=dataset,
        configuration=configuration,
        networks=tuple(networks),
        scans=scans,
        mirror_axes=axes,
        lesion_labels=lesions,
        within_brain=False,
        keep_voxels=False,
        heads=False,
        overlap=0.5,
        device=chosen,
    )
    return predictor, configuration


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: missing; is this a folder of a trained nnU-Net?")
    return read_checked(path, dict[str, Any])


def _checkpoints(root: Path) -> list[Path]:
    found = []
    for fold in sorted(root.glob("fold_*")):
        here = [fold / name for name in CHECKPOINTS if (fold / name).is_file()]
        found += here[:1]
    folds = [path for path in found if path.parent.name != "fold_all"]
    if not found:
        raise InputError(f"{root}: no fold_…/{CHECKPOINTS[0]}")
    return folds or found


def _channels(root: Path, dataset: dict[str, Any]) -> list[str]:
    channels = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(channels, dict) or not channels:
        raise InputError(f"{root / 'dataset.json'}: no channel_names")
    dataset["channel_names"] = channels
    try:
        return [str(channels[key]) for key in sorted(channels, key=int)]
    except ValueError as error:
        raise InputError(f"{root / 'dataset.json'}: channel_names are not numbered") from error


def _by_visit(root: Path, names: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Scans of each visit in order, and the number of visits."""
    visits: dict[int, list[str]] = {}
    for name in names:
        plain, visit = name.lower(), 0
        for ending, number in _VISITS.items():
            match = re.fullmatch(rf"(.+?)[ _-]+{ending}", plain)
            if match:
                plain, visit = match.group(1), number
        scan = _SCANS.get(re.sub(r"[^a-z0-9]", "", plain))
        if scan is None:
            known = ", ".join(sorted(set(_SCANS.values())))
            raise InputError(
                f"{root / 'dataset.json'}: channel {name!r} is none of {known}; name the scans"
            )
        visits.setdefault(visit, []).append(scan)
    first = visits.get(0, [])
    if any(part != first for part in visits.values()) or len(set(first)) < len(first):
        raise InputError(
            f"{root / 'dataset.json'}: channels {list(names)} are not one set per visit"
        )
    if len(visits) == 2 and list(visits) != [0, 1]:
        raise InputError(f"{root / 'dataset.json'}: the follow-up's channels come first")
    return tuple(first), len(visits)


def _lesion_labels(root: Path, dataset: dict[str, Any]) -> tuple[int, ...]:
    try:
        values = {
            str(name): tuple(int(v) for v in (value if isinstance(value, list) else [value]))
            for name, value in dataset["labels"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{root / 'dataset.json'}: its labels are malformed") from error
    named = [v for name, v in values.items() if _LESION.search(name)]
    others = [v for name, v in values.items() if name not in ("background", "ignore")]
    found = tuple(sorted({value for group in named or others for value in group} - {0}))
    if not found:
        raise InputError(f"{root / 'dataset.json'}: no label but the background")
    return found
