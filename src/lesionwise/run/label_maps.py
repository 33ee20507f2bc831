"""Lesions from a label file: whether its labels are lesions, classes or one mask."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lesionwise.instances.components import connected_components
from lesionwise.instances.reference import are_classes
from lesionwise.instances.table import count_parts
from lesionwise.io.files import read_json
from lesionwise.io.nifti import header_notes, stores_floats
from lesionwise.run.pairing import Kind, stem
from lesionwise.types import InputError, Instances, Volume

Side: TypeAlias = Literal["reference", "prediction"]


@dataclass(frozen=True, eq=False)
class LabelledLesions:
    """The lesions of a label file.

    Attributes:
        lesions: on the grid of the volume that was given.
        kind: how the labels were read: "mask" (split into components), "instances", "classes"
            (several labels joined into a mask, which is split) or "label N".
        by_content: whether the content decided that these are instances, not a name or a caller.
        notes: one line for each decision about the labels.
    """

    lesions: Instances
    kind: str
    by_content: bool = False
    notes: tuple[str, ...] = ()


def lesions_of(
    volume: Volume, path: Path, connectivity: int, kind: Kind = "auto", label: int | None = None
) -> LabelledLesions:
    """Read labels as lesions.

    With ``auto``, a file is a mask if its name ends in ``_mask`` or it holds one label, and an
    instance map if lesionwise wrote it as one or its name holds the word instances. Of other
    files with several labels the content decides: labels that lie in 1.5 or more parts each, on
    average, are classes (regions, or lesions and other pathology); then all labels together are
    the mask. The same holds for names that end in ``_dseg``, from two parts more than labels on.

    Args:
        volume: labels, 0 background.
        path: of the file; its name and sidecar count.
        connectivity: of the components: 6, 18 or 26.
        kind: "mask" and "instances" overrule what the file looks like.
        label: the one label that marks lesions; its voxels are a mask.
    """
    labels: NDArray[np.int32] = volume.array.astype(np.int32, copy=False)
    notes = _unusual(labels, path)

    def split(mask: NDArray[np.bool_], how: str) -> LabelledLesions:
        components = Instances(connected_components(mask, connectivity), volume.grid)
        return LabelledLesions(components, how, notes=tuple(notes))

    if label is not None:
        if not (labels == label).any() and labels.any():
            notes.append(f"{path.name}: does not hold label {label}, so it has no lesion")
        return split(labels == label, f"label {label}")
    found = np.unique(labels[labels > 0])
    if kind == "mask":
        return split(labels > 0, "mask")
    if kind == "instances" or _is_instance_map(path):
        return LabelledLesions(Instances(labels, volume.grid), "instances", notes=tuple(notes))
    name = stem(path).lower()
    dseg = name.endswith("_dseg")
    if name.endswith("_mask") or (len(found) < 2 and not dseg):
        if len(found) > 1:
            notes.append(f"{path.name}: {_listed(found)} read as one mask, as its name says")
        return split(labels > 0, "mask")
    parts = count_parts(labels)
    several = sum(count > 1 for count in parts.values())
    total = sum(parts.values())
    # The suffix _dseg speaks for instances, but BIDS uses it for classes too.
    if are_classes(parts, spare=int(dseg)):
        how = "classes" if len(parts) > 1 else "mask"
        notes.append(
            f"{path.name}: {_listed(found)} in {total} separate parts, read as "
            f"{'classes of one' if len(parts) > 1 else 'a'} mask (--label N takes one label, "
            "--kind instances makes each label a lesion)"
        )
        return split(labels > 0, how)
    if several:
        notes.append(
            f"{path.name}: {several} of {len(parts)} labels in several parts, read as instances "
            "(--kind mask splits them)"
        )
    lesions = Instances(labels, volume.grid)
    return LabelledLesions(lesions, "instances", True, tuple(notes))


def labels_by_side(given: int | Mapping[Side, int | None] | None) -> dict[Side, int | None]:
    """The label that marks lesions on each side; one number holds for both.

    Raises:
        InputError: If a label is not positive.
    """
    named = given if isinstance(given, Mapping) else {"reference": given, "prediction": given}
    for label in named.values():
        if label is not None and label < 1:
            raise InputError(f"label: {label} is not a label; labels start at 1")
    return {"reference": named.get("reference"), "prediction": named.get("prediction")}


def labels_of(stated: Sequence[str]) -> dict[Side, int | None]:
    """``labels_by_side`` of texts: ``2`` for both sides, ``reference=2``, ``prediction=2``.

    Raises:
        InputError: If a text is none of these.
    """
    labels: dict[Side, int | None] = {}
    for text in stated:
        side, _, number = text.rpartition("=")
        if side not in ("", "reference", "prediction") or not number.isdecimal():
            raise InputError(f"label: {text!r} is not N, reference=N, prediction=N")
        sides: tuple[Side, ...] = get_args(Side)
        labels |= {name: int(number) for name in sides if side in ("", name)}
    return labels_by_side(labels)


def _is_instance_map(path: Path) -> bool:
    """Whether the name says so, or the file is a ``_dseg`` of lesionwise."""
    if "instances" in stem(path).lower():
        return True
    sidecar = path.with_name(f"{stem(path)}.json")
    if not stem(path).endswith("_dseg") or not os.path.isfile(sidecar):
        return False
    stated = read_json(sidecar)
    if not isinstance(stated, Mapping):
        return False
    made_by = stated.get("GeneratedBy")
    return isinstance(made_by, Mapping) and made_by.get("Name") == "lesionwise"


def _unusual(labels: NDArray[np.int32], path: Path) -> list[str]:
    """What is unusual about a label map that was accepted."""
    highest = int(labels.max(initial=0))
    notes = [f"{path.name}: {note}" for note in header_notes(path)]
    if stores_floats(path):
        notes.append(f"{path.name}: stored as floating point, all whole numbers, taken as labels")
    if highest == 0:
        notes.append(f"{path.name}: holds label 0 only, so it has no lesion")
    if highest > np.iinfo(np.uint16).max:
        notes.append(f"{path.name}: labels up to {highest}, kept as they are")
    return notes


def _listed(labels: NDArray[np.int32]) -> str:
    """``label 1``, ``labels 1, 2 and 4``, or how many between the lowest and the highest."""
    if len(labels) == 1:
        return f"label {labels[0]}"
    if len(labels) > 5:
        return f"{len(labels)} labels from {labels[0]} to {labels[-1]}"
    return f"labels {', '.join(map(str, labels[:-1]))} and {labels[-1]}"
