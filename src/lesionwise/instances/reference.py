"""The reference lesions of a study, as labels."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.types import InputError, LabelArray, Study, Visit, Volume

NO_LESION = "the training studies have no lesion: there is nothing to learn"
"""Why a training is refused whose reference is empty in every study."""

CLASS_PARTS = 1.5
"""Parts per label from which labels are taken for classes, such as regions, not for lesions."""


def reference_of(study: Study, task: str) -> LabelArray:
    """The reference lesions of a study: labels on the grid of its last visit, 0 = background.

    Args:
        study: with labels of its last visit, or changes of the pair.
        task: "lesions" are those of the last visit (``instances_of_visit``). Any other name is
            looked up in the study's changes first ("new", "new-rater-1"), then in the labels of its
            last visit ("rater-1", "consensus"). A mask of 0 and 1 becomes components; a map
            with labels above 1, and one of fractions, is returned as it is.

    Raises:
        InputError: If the study does not say.

    Example:
        >>> from lesionwise.types import Grid, Volume
        >>> volume = Volume(np.ones((2, 2, 2), dtype=bool), Grid((2, 2, 2), np.eye(4)))
        >>> study = Study("a", (Visit({"flair": volume}, {"lesions": volume}),))
        >>> int(reference_of(study, "lesions").max())
        1
    """
    if task == "lesions":
        return instances_of_visit(study.followup)
    labels = study.followup.labels
    if task in study.changes:
        found = study.changes[task].array
    elif task in labels:
        found = labels[task].array
    elif task == "new":
        raise InputError(f"sub-{study.subject}: no map of new lesions to learn from")
    else:
        raise InputError(f"sub-{study.subject}: no reference {task} to learn from")
    if np.issubdtype(found.dtype, np.floating) or found.max(initial=0) > 1:
        return found
    return instances_of(found)


def hard_labels(reference: NDArray[Any]) -> LabelArray:
    """A reference as labels: of fractions the components of what is at least one half.

    Example:
        >>> hard_labels(np.array([[[0.2, 0.5, 0.0, 1.0]]])).tolist()
        [[[0, 1, 0, 2]]]
    """
    if np.issubdtype(reference.dtype, np.floating):
        return instances_of(reference >= 0.5)
    return reference


def instances_of_visit(visit: Visit) -> LabelArray:
    """The visit's instance map; without one the components of its lesion mask.

    Raises:
        InputError: If the visit has neither.

    Example:
        >>> from lesionwise.types import Grid, Volume
        >>> volume = Volume(np.ones((2, 2, 2), dtype=bool), Grid((2, 2, 2), np.eye(4)))
        >>> int(instances_of_visit(Visit({"flair": volume}, {"lesions": volume})).max())
        1
    """
    if "instances" in visit.labels:
        return visit.labels["instances"].array
    if "lesions" in visit.labels:
        return instances_of(visit.labels["lesions"].array)
    raise InputError(f"visit {visit.session or 'of unknown session'}: no lesion mask to learn from")


def instances_of(mask: NDArray[Any]) -> NDArray[np.int32]:
    """Components of a mask as instances, for scans whose lesions nobody separated.

    Corners touch: 26 neighbors. So a confluent lesion counts as one.

    Example:
        >>> instances_of(np.array([[[1, 0, 1]]])).tolist()
        [[[1, 0, 2]]]
    """
    labels, _ = ndimage.label(mask > 0, structure=np.ones((3, 3, 3)))
    return labels.astype(np.int32)  # type: ignore[no-any-return]


def are_classes(parts: dict[int, int], spare: int = 1) -> bool:
    """Whether labels are classes, such as regions, by the parts that each lies in.

    Args:
        parts: from ``table.count_parts``.
        spare: how many more parts than labels are tolerated.

    Example:
        >>> are_classes({1: 4, 2: 3}), are_classes({1: 1, 2: 1, 3: 2})
        (True, False)
    """
    total = sum(parts.values())
    return total >= CLASS_PARTS * len(parts) and total - len(parts) > spare


def classes_joined(study: Study) -> Study:
    """The study with components in the place of instance maps whose labels are classes.

    So a map of regions does not pass for one of lesions. Standard error says where that is so.

    Example:
        >>> import numpy as np
        >>> from lesionwise.types import Grid, Study, Visit, Volume
        >>> regions = np.zeros((9, 3, 3), np.int32)
        >>> regions[::2] = 1  # one label in five separate parts
        >>> map_ = Volume(regions, Grid(regions.shape, np.eye(4)))
        >>> study = Study("01", (Visit({}, {"instances": map_}, None, "01"),))
        >>> int(classes_joined(study).visits[0].labels["instances"].array.max())
        5
    """
    from lesionwise.instances.table import count_parts

    visits = []
    for visit in study.visits:
        volume = visit.labels.get("instances")
        parts = {} if volume is None else count_parts(volume.array)
        if volume is not None and are_classes(parts):
            name = f"sub-{study.subject}" + (f" ses-{visit.session}" if visit.session else "")
            logging.getLogger("lesionwise").warning(
                "%s: its instance map holds %d labels in %d separate parts, read as classes of "
                "one mask",
                name,
                len(parts),
                sum(parts.values()),
            )
            joined = Volume(instances_of(volume.array), volume.grid)
            visit = replace(visit, labels={**visit.labels, "instances": joined})
        visits.append(visit)
    return replace(study, visits=tuple(visits))
