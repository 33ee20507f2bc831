"""From cases to what nnU-Net trains on: raw files, fingerprint, plans, preprocessed arrays.

Every case passes through nnU-Net's own functions in this process; none of its pools is started.
Imports nnunetv2.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from numpy.typing import NDArray

from lesionwise.io.checked import read_checked
from lesionwise.methods.nnunet.cases import AXES, Case
from lesionwise.methods.nnunet.networks import MAX_POOL_UNET
from lesionwise.methods.nnunet.settings import Plans
from lesionwise.methods.nnunet.workspace import DATASET, Workspace
from lesionwise.types import InputError, Progress

NORMALIZATIONS = {
    "z-score": "ZScoreNormalization",
    "rescale to [0, 1]": "RescaleTo01Normalization",
    "none": "NoNormalization",
}
PLANS_NAME = "nnUNetPlans"
INTENSITY_SAMPLES = 1_000_000
"""Lesion voxels behind the fingerprint's intensities, which no normalization of MRI uses; nnU-Net
draws a hundred times as many, also from a handful of small cases."""


def write_raw(
    space: Workspace,
    training: Iterable[Case],
    validation: Iterable[Case],
    channel_names: Sequence[str],
    regions: bool,
) -> None:
    """The raw data set: ``imagesTr``, ``labelsTr``, ``instancesTr``, ``splits_final.json``,
    and ``dataset.json`` last. Without validation cases the training cases validate.

    Instance maps lie beside ``labelsTr``, since nnU-Net refuses labels that its plan does not name.

    Args:
        channel_names: of the channels in order.
        regions: the lesion is a region of its own, with a sigmoid.

    Raises:
        InputError: If there is no training case, or none with a lesion.
    """
    shutil.rmtree(space.raw, ignore_errors=True)
    for part in ("imagesTr", "labelsTr", "instancesTr"):
        (space.raw / part).mkdir(parents=True)
    names: dict[str, list[str]] = {"train": [], "val": []}
    lesions = False
    for split, cases in (("train", training), ("val", validation)):
        for number, case in enumerate(cases):
            name = f"{split}_{number:04d}"
            names[split].append(name)
            lesions = lesions or (split == "train" and bool(case.labels.any()))
            _write_case(space.raw, name, case)
    if not names["train"]:
        raise InputError("nothing to learn from: no training case is left")
    if not lesions:
        raise InputError("nothing to learn from: no training case shows a lesion")
    splits = [{"train": names["train"], "val": names["val"] or names["train"]}]
    (space.raw / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    description: dict[str, Any] = {
        "channel_names": {str(n): name for n, name in enumerate(channel_names)},
        "labels": {"background": 0, "lesion": [1] if regions else 1},
        "numTraining": len(names["train"]),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
    }
    if regions:
        description["regions_class_order"] = [1]
    (space.raw / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")


def _write_case(raw: Path, name: str, case: Case) -> None:
    affine = np.diag([*case.spacing_mm, 1.0])

    def save(array: NDArray[Any], folder: str, ending: str = "") -> None:
        image = nib.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
        nib.save(image, raw / folder / f"{name}{ending}.nii.gz")

    for channel, image in enumerate(case.images):
        save(image, "imagesTr", f"_{channel:04d}")
    save((case.labels > 0).astype(np.uint8), "labelsTr")
    labels = np.unique(case.labels[case.labels > 0])
    instances = np.where(case.labels > 0, np.searchsorted(labels, case.labels) + 1, 0)
    save(instances.astype(np.int16), "instancesTr")


def case_names(space: Workspace) -> dict[str, list[str]]:
    """Names of the cases under ``train`` and ``val``."""
    splits = read_checked(space.raw / "splits_final.json", list[dict[str, list[str]]])
    return splits[0]


def make_plans(space: Workspace, plans: Plans, configuration: str, progress: Progress) -> None:
    """nnU-Net's fingerprint of the training cases, and its plans with what ``plans`` sets.

    Raises:
        InputError: If a patch size cannot be halved as often as nnU-Net's network halves it.
    """
    space.preprocessed.mkdir(parents=True, exist_ok=True)
    names = case_names(space)["train"]
    description = read_checked(space.raw / "dataset.json", dict[str, Any])
    samples = max(1, INTENSITY_SAMPLES // len(names))
    found = []
    for done, name in enumerate(names):
        progress("fingerprint", done, len(names))
        found.append(
            DatasetFingerprintExtractor.analyze_case(
                image_files(space.raw, name, len(description["channel_names"])),
                str(space.raw / "labelsTr" / f"{name}.nii.gz"),
                NibabelIO,
                samples,
            )
        )
    intensities = {}
    for channel in range(len(description["channel_names"])):
        values = np.concatenate([np.asarray(case[2][channel], dtype=float) for case in found])
        low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
        intensities[str(channel)] = {
            "mean": float(values.mean()),
            "median": float(median),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
            "percentile_99_5": float(high),
            "percentile_00_5": float(low),
        }
    fingerprint = {
        "spacings": [[float(x) for x in case[1]] for case in found],
        "shapes_after_crop": [[int(x) for x in case[0]] for case in found],
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": float(np.median([case[4] for case in found])),
    }
    (space.preprocessed / "dataset_fingerprint.json").write_text(
        json.dumps(fingerprint, indent=2), encoding="utf-8"
    )
    _Planner(plans, configuration).plan_experiment()


def image_files(raw: Path, name: str, channels: int) -> list[str]:
    return [str(raw / "imagesTr" / f"{name}_{n:04d}.nii.gz") for n in range(channels)]


class _Planner(ExperimentPlanner):  # type: ignore[misc]
    """nnU-Net's planner with some decisions made by the recipe."""

    def __init__(self, plans: Plans, configuration: str) -> None:
        super().__init__(DATASET, plans.gpu_memory_gb)
        self.settings = plans
        self.wanted = configuration
        self.UNet_base_num_features = plans.base_features
        if plans.max_features is not None:
            self.UNet_max_features_2d = self.UNet_max_features_3d = plans.max_features

    def determine_transpose(self) -> tuple[list[int], list[int]]:
        order = self._order()
        return order, [order.index(axis) for axis in range(3)]

    def _order(self) -> list[int]:
        """nnU-Net's axes as positions in its arrays, whose axes are k, j, i."""
        if self.settings.first_axis is not None:
            first = 2 - AXES.index(self.settings.first_axis)
        else:
            first = int(np.argmax(np.median(self.dataset_fingerprint["spacings"], axis=0)))
        return [first] + [axis for axis in range(3) if axis != first]

    def determine_fullres_target_spacing(self) -> NDArray[np.float64]:
        if self.settings.spacing_mm is None:
            return np.asarray(super().determine_fullres_target_spacing(), dtype=np.float64)
        target = np.empty(3)
        target[self._order()] = self.settings.spacing_mm
        return target

    def get_plans_for_configuration(
        self,
        spacing: Any,
        median_shape: Any,
        data_identifier: str,
        approximate_n_voxels_dataset: float,
        _cache: dict[str, Any],
    ) -> dict[str, Any]:
        plan: dict[str, Any] = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        settings = self.settings
        plan["normalization_schemes"] = [NORMALIZATIONS[settings.normalization]] * len(
            plan["normalization_schemes"]
        )
        if settings.normalization != "z-score":
            plan["use_mask_for_norm"] = [False] * len(plan["use_mask_for_norm"])
        architecture = plan["architecture"]["arch_kwargs"]
        wanted = data_identifier == self.generate_data_identifier(self.wanted)
        if settings.patch_size_vox is not None and wanted:
            self._set_patch(plan, spacing, approximate_n_voxels_dataset)
        if settings.down_sampling == "max pooling":
            plan["architecture"]["network_class_name"] = MAX_POOL_UNET
        if settings.dropout > 0:
            architecture["dropout_op"] = f"torch.nn.Dropout{len(spacing)}d"
            architecture["dropout_op_kwargs"] = {"p": settings.dropout}
        if settings.batch_size is not None:
            plan["batch_size"] = settings.batch_size
        return plan

    def _set_patch(self, plan: dict[str, Any], spacing: Any, voxels: float) -> None:
        """The network and the batch size that nnU-Net would choose for the given patch size."""
        size_vox = self.settings.patch_size_vox
        assert size_vox is not None
        if len(size_vox) != len(spacing):
            raise InputError(f"patch_size_vox {size_vox}: {len(spacing)} numbers are needed")
        _, strides, kernels, patch, _ = get_pool_and_conv_props(
            spacing, list(size_vox), self.UNet_featuremap_min_edge_length, 999999
        )
        if tuple(int(n) for n in patch) != tuple(size_vox):
            raise InputError(
                f"patch_size_vox {tuple(size_vox)}: nnU-Net cannot halve it evenly; "
                f"{tuple(int(n) for n in patch)} would do"
            )
        levels = len(strides)
        most = self.UNet_max_features_2d if len(spacing) == 2 else self.UNet_max_features_3d
        architecture = plan["architecture"]
        architecture["arch_kwargs"].update(
            n_stages=levels,
            features_per_stage=tuple(
                min(most, self.UNet_base_num_features * 2**level) for level in range(levels)
            ),
            kernel_sizes=kernels,
            strides=strides,
            n_conv_per_stage=self.UNet_blocks_per_stage_encoder[:levels],
            n_conv_per_stage_decoder=self.UNet_blocks_per_stage_decoder[: levels - 1],
        )
        cost = self.static_estimate_VRAM_usage(
            patch,
            len(self.dataset_json["channel_names"]),
            len(self.dataset_json["labels"]),
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
        )
        two = len(spacing) == 2
        fits = self.UNet_reference_val_2d if two else self.UNet_reference_val_3d
        fits *= self.UNet_vram_target_GB / self.UNet_reference_val_corresp_GB
        usual = (
            self.UNet_reference_val_corresp_bs_2d if two else self.UNet_reference_val_corresp_bs_3d
        )
        share = round(voxels * self.max_dataset_covered / float(np.prod(patch)))
        batch = max(min(round(fits / cost * usual), share), self.UNet_min_batch_size)
        plan.update(patch_size=[int(n) for n in patch], batch_size=int(batch))
