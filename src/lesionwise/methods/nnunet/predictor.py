"""A trained nnU-Net applied to prepared studies. Imports nnunetv2."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from lesionwise.inference.devices import supports_bfloat16
from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.methods.nnunet.cases import images_of, spacing_told
from lesionwise.methods.nnunet.workspace import quiet
from lesionwise.methods.tidy import Tidy
from lesionwise.types import BoolArray, InputError, LesionMaps, Progress, Study, silent

FLAT = 3
"""Axes of a volume; a network with fewer sees slices."""


class Windows(nnUNetPredictor):  # type: ignore[misc]
    """nnU-Net's sliding window with sums in float32 and offsets that turn when mirrored.

    Windows outside ``inside`` are not computed; what no window saw is 0.

    Attributes:
        inside: where the padded volume holds anything; None computes every window.
        offsets: first of the channels that hold offsets along the volume's axes, if any.
        low: compute in bfloat16.
        told: called with the windows done and their total.
    """

    inside: BoolArray | None = None
    offsets: int | None = None
    low = False
    told: Callable[[int, int], None] = staticmethod(lambda done, total: None)

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        axes = (self.allowed_mirroring_axes or ()) if self.use_mirroring else ()
        chosen = [c for n in range(len(axes) + 1) for c in combinations(sorted(axes), n)]
        total: torch.Tensor | None = None
        for flipped in chosen:
            dims = [axis + 2 for axis in flipped]
            seen = self.network(x.flip(dims) if dims else x).float()
            if dims:
                seen = seen.flip(dims)
                if self.offsets is not None:
                    for axis in flipped:
                        seen[:, self.offsets + axis] *= -1
            total = seen if total is None else total + seen
        assert total is not None
        return total / len(chosen)

    @torch.inference_mode()
    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Sequence[Any], do_on_device: bool = True
    ) -> torch.Tensor:
        device = self.device if do_on_device else torch.device("cpu")
        data = data.to(device)
        patch = tuple(self.configuration_manager.patch_size)
        weights = compute_gaussian(
            patch, sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=device
        )
        if self.inside is not None:
            inside = self._padded_like(data)
            slicers = [s for s in slicers if inside[s[1:]].any()]
        total: torch.Tensor | None = None
        weight = torch.zeros(data.shape[1:], device=device)
        for done, box in enumerate(slicers):
            self.told(done, len(slicers))
            with self._precision():
                window = data[box][None].to(self.device)
                seen = self._internal_maybe_mirror_and_predict(window)[0].to(device)
            if total is None:
                total = torch.zeros((len(seen), *data.shape[1:]), device=device)
            total[box] += seen * weights
            weight[box[1:]] += weights
        if total is None:
            raise InputError("nothing in the scans to predict from")
        return total / weight.clamp(min=1e-12)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where asked for; heatmaps in float32, since rounded ones have no peaks; else
        what nnU-Net does."""
        if self.low:
            return torch.autocast(self.device.type, torch.bfloat16)
        if self.offsets is not None:
            return torch.autocast(self.device.type, enabled=False)
        return contextlib.nullcontext()

    def _padded_like(self, data: torch.Tensor) -> BoolArray:
        """``inside`` as nnU-Net pads the data: on both sides, one more at the end."""
        assert self.inside is not None
        extra = [n - m for n, m in zip(data.shape[1:], self.inside.shape, strict=True)]
        padded: BoolArray = np.pad(self.inside, [(n // 2, n - n // 2) for n in extra])
        return padded


class OnOpenvino(torch.nn.Module):
    """A network that OpenVINO computes; nnU-Net's predictor takes nothing but modules."""

    def __init__(self, network: torch.nn.Module, *, low: bool) -> None:
        super().__init__()
        self.compiled = OpenVinoNetwork(network, use_bf16=low)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compiled(x)


def computed_by(
    network: torch.nn.Module, engine: str | None, precision: str, heads: bool, device: torch.device
) -> torch.nn.Module:
    """The network on ``device``, computed by ``engine``; by torch where that is not there."""
    network = network.to(device).eval()
    if engine != "openvino" or device.type != "cpu" or not has_openvino():
        return network
    low = precision == "bfloat16" and not heads and supports_bfloat16(device)
    return OnOpenvino(network, low=low).eval()


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
        keep_voxels: nnU-Net is told voxels of 1 mm.
        heads: whether a heatmap and offsets follow the segmentation's channels.
        overlap: of neighboring windows.
        device: to compute on.
        precision: "bfloat16" takes effect where the processor computes it natively and there are
            no heads.
        tidy: changes the maps of a study; None keeps them.
        progress: told of each window.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    networks: tuple[torch.nn.Module, ...]
    scans: tuple[str, ...]
    mirror_axes: tuple[int, ...]
    lesion_labels: tuple[int, ...]
    within_brain: bool
    keep_voxels: bool
    heads: bool
    overlap: float
    device: torch.device
    precision: str = "float32"
    tidy: Tidy | None = None
    progress: Progress = silent

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
            maps = self._maps(images, spacing_told(grid.spacing_mm, self.keep_voxels))
        lesions = LesionMaps(
            probability=maps[0],
            grid=grid,
            center_heatmap=maps[1] if self.heads else None,
            offsets_vox=maps[2:5] if self.heads else None,
        )
        return lesions if self.tidy is None else self.tidy(lesions)

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
        windows = Windows(
            tile_step_size=1 - self.overlap,
            use_mirroring=bool(self.mirror_axes),
            perform_everything_on_device=self.device.type == "cuda",
            device=self.device,
            allow_tqdm=False,
        )
        windows.inside = np.asarray(outside[0] >= 0)
        low = self.precision == "bfloat16" and not self.heads
        windows.low = low and supports_bfloat16(self.device)
        windows.told = lambda done, total: self.progress("windows", done, total)
        labels = manager.get_label_manager(self.dataset)
        segments = labels.num_segmentation_heads
        if self.heads:
            windows.offsets = segments + 1
        total: torch.Tensor | None = None
        for network in self.networks:
            windows.manual_initialization(
                network, manager, settings, None, self.dataset, "", self.mirror_axes or None
            )
            seen = windows.predict_sliding_window_return_logits(torch.from_numpy(data)).cpu()
            total = seen if total is None else total + seen
        assert total is not None
        logits = total / len(self.networks)
        return self._native(logits, properties, manager, settings, labels)

    def _native(
        self, logits: torch.Tensor, properties: Any, manager: Any, settings: Any, labels: Any
    ) -> NDArray[np.float32]:
        """(1 or 5, I, J, K) maps on the study's grid from what the network said on its own."""
        order = list(manager.transpose_forward)
        spacing = [properties["spacing"][axis] for axis in order]
        shape = properties["shape_after_cropping_and_before_resampling"]
        target = list(settings.spacing)
        current = target if len(target) == FLAT else [spacing[0], *target]
        resampled = settings.resampling_fn_probabilities(logits.numpy(), shape, current, spacing)
        resampled = torch.as_tensor(np.asarray(resampled))
        segments = labels.num_segmentation_heads
        chances = labels.apply_inference_nonlin(resampled[:segments].float()).numpy()
        maps = [self._lesion(chances, labels)]
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

    def _lesion(self, chances: NDArray[Any], labels: Any) -> NDArray[Any]:
        """Probability of any of the lesion labels."""
        if labels.has_regions:
            found = []
            for place, region in enumerate(labels.foreground_regions):
                values = region if isinstance(region, tuple | list) else (region,)
                if set(values) & set(self.lesion_labels):
                    found.append(chances[place])
            return np.asarray(np.max(found, axis=0))
        values = list(labels.all_labels)
        wanted = [chances[values.index(v)] for v in self.lesion_labels]
        return np.asarray(np.sum(wanted, axis=0))
