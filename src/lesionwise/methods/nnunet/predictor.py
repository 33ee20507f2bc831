"""A trained nnU-Net applied to prepared studies. Imports nnunetv2."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from lesionwise.inference.devices import supports_bfloat16
from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.inference.views import Apply
from lesionwise.inference.window import SlidingWindow, sliding_window_inference
from lesionwise.io.cache import cache_folder
from lesionwise.methods.clean_maps import Cleanup
from lesionwise.methods.nnunet.cases import images_of, nnunet_spacing
from lesionwise.methods.nnunet.workspace import quiet
from lesionwise.types import (
    BoolArray,
    FloatArray,
    InputError,
    LesionMaps,
    Progress,
    Study,
    no_progress,
)

Network: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From patches (B, C, …) to logits (B, M, …): 3 axes, or 2 for slices."""
FLAT = 3
"""Axes of a volume; a network with fewer sees slices."""
SURE_LOGIT = 16.0
"""Where no window looked: a probability of 1e-7."""


def computed_by(
    network: torch.nn.Module, engine: str | None, precision: str, heads: bool, device: torch.device
) -> Network:
    """The network on ``device``, computed by ``engine``; by torch where that is not there."""
    network = network.to(device).eval()
    if engine != "openvino" or device.type != "cpu" or not has_openvino():
        return network
    use_bf16 = precision == "bfloat16" and not heads and supports_bfloat16(device)
    return OpenVinoNetwork(network, use_bf16=use_bf16, kept_in=cache_folder())


@dataclass(frozen=True, eq=False)
class NnunetPredictor:
    """One or several trained networks of one nnU-Net configuration, ready for prepared studies.

    Attributes:
        plans, dataset: nnU-Net's ``plans.json`` and ``dataset.json``.
        configuration: such as ``3d_fullres``.
        networks: whose logits are averaged.
        scans: channels of each visit, in order.
        mirror_axes: of nnU-Net's arrays, averaged over.
        lesion_labels: values of ``dataset.json`` that are lesions.
        within_brain: set scans to 0 outside the visit's brain, where it is known.
        keep_voxels: nnU-Net is given a voxel size of 1 mm.
        heads: whether a heatmap and offsets follow the segmentation's channels.
        overlap: of neighboring windows.
        device: to compute on.
        precision: "bfloat16" takes effect where the processor computes it natively and there are
            no heads.
        cleanup: changes the maps of a study; None keeps them.
        progress: called with each window.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    networks: tuple[Network, ...]
    scans: tuple[str, ...]
    mirror_axes: tuple[int, ...]
    lesion_labels: tuple[int, ...]
    within_brain: bool
    keep_voxels: bool
    heads: bool
    overlap: float
    device: torch.device
    precision: str = "float32"
    cleanup: Cleanup | None = None
    progress: Progress = no_progress

    def __call__(self, study: Study) -> LesionMaps:
        """Lesion maps on the grid of the study's last visit.

        Raises:
            InputError: If a visit lacks a scan, or the scans lie on different grids.
        """
        images = images_of(study, self.scans, self.within_brain)
        if len(images) != len(self.dataset["channel_names"]):
            raise InputError(
                f"sub-{study.subject}: this model takes {len(self.dataset['channel_names'])} "
                f"scans, {len(images)} are here"
            )
        grid = study.followup.scans[self.scans[0]].grid
        if not images.any():
            raise InputError(f"sub-{study.subject}: every voxel is zero")
        with contextlib.redirect_stdout(io.StringIO()), quiet():
            maps = self._maps(images, nnunet_spacing(grid.spacing_mm, self.keep_voxels))
        lesions = LesionMaps(
            probability=maps[0],
            grid=grid,
            center_heatmap=maps[1] if self.heads else None,
            offsets_vox=maps[2:5] if self.heads else None,
        )
        return lesions if self.cleanup is None else self.cleanup(lesions)

    def _maps(self, images: NDArray[Any], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
        manager = PlansManager(self.plans)
        settings = manager.get_configuration(self.configuration)
        data, outside, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            np.ascontiguousarray(images.transpose(0, 3, 2, 1)),
            None,
            {"spacing": list(spacing_mm[::-1])},
            manager,
            settings,
            self.dataset,
        )
        labels = manager.get_label_manager(self.dataset)
        logits = self._logits(data, np.asarray(outside[0] >= 0), settings.patch_size, labels)
        return self._native(logits, properties, manager, settings, labels)

    def _logits(
        self, data: FloatArray, inside: BoolArray, patch_size: list[int], labels: Any
    ) -> NDArray[np.float32]:
        """(M, I, J, K) mean logits of the networks; the background's where no window looked."""
        segments = labels.num_segmentation_heads
        names = [f"logit_{n}" for n in range(segments)]
        if self.heads:
            names += ["heatmap", "offset_i", "offset_j", "offset_k"]
        flat = FLAT - len(patch_size)
        i, j, k = (1,) * flat + tuple(patch_size)
        window = SlidingWindow(
            overlap=self.overlap,
            mirror_axes=tuple(flat + axis for axis in sorted(self.mirror_axes)),
            precision="bfloat16" if self.precision == "bfloat16" and not self.heads else "float32",
            weighting="nnunet",
        )
        # small volumes lie in the middle of a patch, as nnU-Net has it
        lacking = [max(0, m - n) for n, m in zip(inside.shape, (i, j, k), strict=True)]
        border = [(n // 2, n - n // 2) for n in lacking]
        padded = sliding_window_inference(
            self._applied(flat, window),
            list(np.pad(data, [(0, 0), *border])),
            np.pad(inside, border),
            (i, j, k),
            names,
            window,
            self.device,
            on_progress=lambda done, total: self.progress("windows", done, total),
        )
        box = tuple(slice(m, m + n) for n, (m, _) in zip(inside.shape, border, strict=True))
        logits = padded[(slice(None), *box)]
        unseen = (logits == 0).all(axis=0)
        if labels.has_regions:
            logits[:segments, unseen] = -SURE_LOGIT
        else:
            logits[0, unseen] = SURE_LOGIT
        return logits

    def _applied(self, flat: int, window: SlidingWindow) -> Apply:
        """The mean of the networks on windows (B, C, I, J, K), whose first axes may be slices.

        On a GPU nnU-Net's mixed precision, but for heatmaps, since rounded ones have no peaks.
        """
        mixed = self.device.type == "cuda" and window.precision == "float32" and not self.heads

        def apply(patches: torch.Tensor) -> torch.Tensor:
            seen = patches.squeeze(2) if flat else patches
            with torch.autocast("cuda") if mixed else contextlib.nullcontext():
                total = self.networks[0](seen).float()
                for network in self.networks[1:]:
                    total = total + network(seen).float()
            mean = total / len(self.networks)
            return mean.unsqueeze(2) if flat else mean

        return apply

    def _native(
        self,
        logits: NDArray[np.float32],
        properties: Any,
        manager: Any,
        settings: Any,
        labels: Any,
    ) -> NDArray[np.float32]:
        """(1 or 5, I, J, K) maps on the study's grid from what the network said on its own."""
        order = list(manager.transpose_forward)
        spacing = [properties["spacing"][axis] for axis in order]
        shape = properties["shape_after_cropping_and_before_resampling"]
        target = list(settings.spacing)
        current = target if len(target) == FLAT else [spacing[0], *target]
        resampled = settings.resampling_fn_probabilities(logits, shape, current, spacing)
        resampled = torch.as_tensor(np.asarray(resampled))
        segments = labels.num_segmentation_heads
        probabilities = labels.apply_inference_nonlin(resampled[:segments].float()).numpy()
        maps = [self._lesion(probabilities, labels)]
        if self.heads:
            maps.append(resampled[segments].numpy())
            offsets: dict[int, Any] = {}
            for axis in range(FLAT):
                # a component is in voxels of the network's grid, along the network's axes
                scale = shape[axis] / logits.shape[1 + axis]
                offsets[2 - order[axis]] = resampled[segments + 1 + axis].numpy() * scale
            maps += [offsets[axis] for axis in range(FLAT)]
        box = tuple(slice(*ends) for ends in properties["bbox_used_for_cropping"])
        whole = np.zeros((len(maps), *properties["shape_before_cropping"]), dtype=np.float32)
        for place, part in enumerate(maps):
            whole[place][box] = part
        back = [1 + axis for axis in manager.transpose_backward]
        return np.ascontiguousarray(whole.transpose(0, *back).transpose(0, 3, 2, 1))

    def _lesion(self, probabilities: NDArray[Any], labels: Any) -> NDArray[Any]:
        """Probability of any of the lesion labels."""
        if labels.has_regions:
            found = []
            for place, region in enumerate(labels.foreground_regions):
                values = region if isinstance(region, tuple | list) else (region,)
                if set(values) & set(self.lesion_labels):
                    found.append(probabilities[place])
            return np.asarray(np.max(found, axis=0))
        values = list(labels.all_labels)
        wanted = [probabilities[values.index(v)] for v in self.lesion_labels]
        return np.asarray(np.sum(wanted, axis=0))
