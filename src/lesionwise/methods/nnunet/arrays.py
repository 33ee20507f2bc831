"""Cases through nnU-Net's preprocessor, kept as plain arrays. Imports nnunetv2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.io.checked import read_checked
from lesionwise.io.files import atomic_path
from lesionwise.methods.nnunet.plan import PLANS_NAME, case_names, image_files
from lesionwise.methods.nnunet.workspace import Workspace
from lesionwise.types import InputError, LabelArray, Progress


def preprocess(
    space: Workspace, configuration: str, instances: bool, progress: Progress
) -> dict[str, Any]:
    """Every case through nnU-Net's preprocessor, kept as arrays; the plans are returned.

    Cases that are there already are left as they are.

    Args:
        instances: keep the labels of instances in place of 1.
    """
    plans = read_checked(space.preprocessed / f"{PLANS_NAME}.json", dict[str, Any])
    description = read_checked(space.raw / "dataset.json", dict[str, Any])
    manager = PlansManager(plans)
    if configuration not in manager.available_configurations:
        raise InputError(f"nnU-Net plans no {configuration} configuration for these scans")
    settings = manager.get_configuration(configuration)
    folder = space.preprocessed / settings.data_identifier
    folder.mkdir(exist_ok=True)
    names = [name for part in case_names(space).values() for name in part]
    names = list(dict.fromkeys(names))
    for done, name in enumerate(names):
        progress("preprocess", done, len(names))
        if (folder / f"{name}_seg.npy").is_file():
            continue
        reader = NibabelIO()
        images, properties = reader.read_images(
            image_files(space.raw, name, len(description["channel_names"]))
        )
        mask, _ = reader.read_seg(str(space.raw / "labelsTr" / f"{name}.nii.gz"))
        data, labels, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            images, mask, properties, manager, settings, description
        )
        labels = labels.astype(np.int16)
        if instances:
            instance_map, _ = reader.read_seg(str(space.raw / "instancesTr" / f"{name}.nii.gz"))
            box = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
            cropped = instance_map[0].transpose(manager.transpose_forward)[box]
            labels[0] = carry_instances(cropped, labels[0])
        found = next(iter(properties["class_locations"].values()))
        where = np.asarray(found, dtype=np.int32).reshape(-1, 4)
        kept = {name: np.asarray(data, dtype=np.float32), f"{name}_where": where}
        for file, array in {**kept, f"{name}_seg": labels}.items():  # the last says that all are
            with atomic_path(folder / f"{file}.npy") as partial:
                np.save(partial, array)
    return plans


def carry_instances(instances: LabelArray, mask: LabelArray) -> NDArray[np.int16]:
    """Instance labels on a resampled mask.

    Args:
        instances: (X, Y, Z) before resampling.
        mask: (X', Y', Z') of the same extent after it: 1 lesion, 0 none, -1 outside.

    Returns:
        (X', Y', Z') int16: in the mask the label of the nearest labelled voxel, -1 and 0 as in
        ``mask``. Ties go to whichever the distance transform finds.
    """
    out = mask.astype(np.int16)
    inside = np.argwhere(mask > 0)
    if not len(inside) or not (instances > 0).any():
        return out
    scale = np.array(instances.shape) / np.array(mask.shape)
    source = np.rint((inside + 0.5) * scale - 0.5).astype(int)
    source = np.clip(source, 0, np.array(instances.shape) - 1)
    nearest = ndimage.distance_transform_edt(
        instances <= 0, sampling=1 / scale, return_distances=False, return_indices=True
    )
    at = nearest[(slice(None), *source.T)]
    out[tuple(inside.T)] = instances[tuple(at)]
    return out


class NumpyDataset(nnUNetBaseDataset):  # type: ignore[misc]
    """Preprocessed cases as nnU-Net's loader asks for them, mapped from plain NumPy files."""

    def load_case(
        self, identifier: str
    ) -> tuple[NDArray[Any], NDArray[Any], None, Mapping[str, Any]]:
        folder = Path(self.source_folder)
        where = np.load(folder / f"{identifier}_where.npy")
        # copy on write: transforms write into a patch, which may be the whole case
        return (
            np.load(folder / f"{identifier}.npy", mmap_mode="c"),
            np.load(folder / f"{identifier}_seg.npy", mmap_mode="c"),
            None,
            {"class_locations": {1: where}},
        )

    @staticmethod
    def save_case(
        data: NDArray[Any],
        seg: NDArray[Any],
        properties: Mapping[str, Any],
        output_filename_truncated: str,
    ) -> None:
        raise NotImplementedError("preprocess writes the cases")

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        ending = "_seg.npy"
        return sorted(p.name.removesuffix(ending) for p in Path(folder).glob(f"*{ending}"))
