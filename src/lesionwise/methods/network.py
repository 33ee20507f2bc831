"""A network trained with Lightning on samples of any kind, applied window by window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn
from torch.utils.data import DataLoader

from lesionwise.inference.devices import device_of, devices_of, supports_bfloat16
from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.inference.views import MonteCarlo, Views
from lesionwise.inference.weights import INITIAL, WEIGHTS, read_initial, read_weights, save_weights
from lesionwise.inference.window import SlidingWindow, call_network, sliding_window_inference
from lesionwise.io.cache import cache_folder
from lesionwise.io.files import write_json
from lesionwise.learning.channels import channels
from lesionwise.learning.normalization import Normalizer
from lesionwise.learning.objective import Objective
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.parts import Part
from lesionwise.learning.samplers import EpochSampler
from lesionwise.learning.samples import NumberedSamples, Reading, SampleRequest, Samples
from lesionwise.learning.targets import Targets
from lesionwise.methods.members import fit_once
from lesionwise.methods.selection import Selection
from lesionwise.networks.blocks import init_head_bias
from lesionwise.types import (
    BoolArray,
    InputError,
    LesionMaps,
    Method,
    Predictor,
    Progress,
    RunContext,
    Shape,
    Study,
    TrainingData,
    no_progress,
)

Apply = Callable[..., Any]


@dataclass(frozen=True)
class Inference:
    """How a trained network is applied to a study.

    Attributes:
        window: how a volume is covered.
        size_vox: of a window; None takes the patch of the training.
        multiple_vox: sides that a network of several levels takes are multiples of this. A window
            that is longer than the volume is then cut by as many multiples on both sides as leave
            the volume in it. None leaves windows as they are.
        planes: predictions of the whole volume that are joined, such as ``Planes``, whose axes are
            moved last in turn for networks on planes; None predicts the volume as it is.
        dropout: predictions with dropout left on, averaged within each window; None leaves it off.
        normalize: of each channel of the whole volume, in training after its augmentation too.
    """

    window: SlidingWindow = field(default_factory=SlidingWindow)
    size_vox: Shape | None = None
    multiple_vox: int | None = None
    planes: Views | None = None
    dropout: MonteCarlo | None = None
    normalize: Normalizer | None = None


@dataclass(frozen=True)
class Runtime:
    """What a training computes with.

    Attributes:
        precision: of convolutions: "bfloat16" takes effect where the processor computes it
            natively. Weights and losses are float32 in any case.
        sync_batch_norm: take a batch's statistics over all devices that train together.
    """

    precision: Literal["float32", "bfloat16"] = "bfloat16"
    sync_batch_norm: bool = False


@dataclass(frozen=True)
class NetworkMethod:
    """One network: its data, its objective, the modules beside it, and how it is applied.

    Attributes:
        network: builds the untrained network (``lesionwise.networks`` says what it must keep to).
        scans: its channels, as ``learning.channels`` names them.
        samples: where batches come from.
        objective: what is minimized, and what the output means.
        optimization: optimizer, learning rate, length.
        task: the reference: "lesions" of the last visit, "new" ones among them, or a name.
        parts: modules beside the network, trained first, together with it, frozen or moved.
        inference: how it is applied.
        selection: how it is validated, and which of the best weights becomes the model.
        runtime: precision and devices.
    """

    network: Callable[[], nn.Module]
    scans: tuple[str, ...]
    samples: Samples
    objective: Objective
    optimization: Optimization
    task: str = "lesions"
    parts: tuple[Part, ...] = ()
    inference: Inference = field(default_factory=Inference)
    selection: Selection = field(default_factory=Selection)
    runtime: Runtime = field(default_factory=Runtime)

    uses_validation = True
    """The weights with the best validation scores are taken."""

    def __post_init__(self) -> None:
        if self.samples.batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, not {self.samples.batch_size}")
        if min(self.samples.size_vox) < 1:
            raise ValueError(
                f"size_vox must be 1 or more along each axis, not {self.samples.size_vox}"
            )

    def members(self) -> tuple[Method, ...]:
        """The methods that train parts first."""
        return tuple(part.first for part in self.parts if part.first is not None)

    @property
    def reading(self) -> Reading:
        return Reading(self.scans, self.task, self.inference.normalize)

    @property
    def targets(self) -> Targets:
        """What the output means.

        Raises:
            InputError: If the network is trained for its weights alone.
        """
        if self.objective.targets is None:
            raise InputError("this network was only trained for its weights; it cannot predict")
        return self.objective.targets

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Train, choose among the best weights, and leave ``model.safetensors``.

        ``run.folder`` also gets ``log.csv`` (a row per epoch), ``training.json`` (a summary),
        ``candidates/`` and ``checkpoints/``, from which a killed training resumes, and for each
        part that is trained first a folder of its name.

        Raises:
            InputError: If there is nothing to learn from, a study lacks a scan or a reference, or
                the folder cannot be written.
        """
        from lesionwise.learning import loop  # imports Lightning

        device, devices = devices_of(run.device)
        run.folder.mkdir(parents=True, exist_ok=True)
        request = SampleRequest(self.reading, self.objective, run.seed)
        training = self.samples.open(data, request)
        # Before the network is built: it takes the weights that its parts have learned.
        run = self._train_parts_first(data, run)
        network, parts = self._built(run)
        use_bf16 = self.runtime.precision == "bfloat16" and supports_bfloat16(device)
        setup = loop.Setup(
            network=network,
            parts=parts,
            objective=self.objective,
            optimization=self.optimization,
            validate=self._validation(data),
            validation_loss=self._validation_batches(data, replace(request, validation=True)),
            validate_every=self.selection.every,
            keep=self.selection.top_k,
            ranked_by=self.selection.ranked_by,
            precision="bf16-mixed" if use_bf16 else "32-true",
            sync_batch_norm=self.runtime.sync_batch_norm,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=devices,
        )
        outcome = loop.fit(
            setup,
            _loader(training, self.samples.batch_size, training.per_epoch, run.workers),
            run.folder,
            resume=run.resume,
            max_minutes=run.max_minutes,
            max_steps=run.max_steps,
            # With several devices each process would report, on one terminal.
            on_progress=run.progress if len(devices) == 1 else no_progress,
        )
        modules = {part.name: module for part, module in parts}
        chosen = self._choose(outcome.candidates, data.validation, network, modules, device, run)
        save_weights(network, run.folder / WEIGHTS, modules)
        summary = {
            "epochs": outcome.epochs,
            "steps": outcome.steps,
            "patches": outcome.steps * self.samples.batch_size * len(devices),
            "minutes": round(outcome.minutes, 2),
            "max_minutes": run.max_minutes,
            "max_steps": run.max_steps,
            "training_studies": len(data.training),
            "validation_studies": len(data.validation),
            "device": str(device),
            "devices": len(devices),
            "precision": "bfloat16" if use_bf16 else "float32",
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in network.parameters()),
            "chosen": chosen,
        }
        write_json(run.folder / "training.json", summary)

    def _train_parts_first(self, data: TrainingData, run: RunContext) -> RunContext:
        """Train what is trained first, each in a folder of its name; the time limit is shared."""
        first = [part for part in self.parts if part.first is not None]
        if not first:
            return run
        if run.max_minutes is not None:
            run = replace(run, max_minutes=run.max_minutes / (1 + len(first)))
        for part in first:
            assert part.first is not None
            fit_once(part.first, data, replace(run, folder=run.folder / part.name))
        return run

    def _built(self, run: RunContext) -> tuple[nn.Module, list[tuple[Part, nn.Module]]]:
        """The network and its parts as a training begins with them."""
        torch.manual_seed(run.seed)
        network = _fast(self.network())
        if self.objective.targets is not None:
            init_head_bias(network, self.objective.targets.initial_logits)
        if (run.folder / INITIAL).is_file():
            read_initial(network, run.folder / INITIAL)
        built = []
        for part in self.parts:
            module = _fast(part.build(network))
            if part.first is not None:
                read_weights(module, run.folder / part.name / WEIGHTS)
            built.append((part, module))
        return network, built

    def _validation(self, data: TrainingData) -> Validation | None:
        if not (len(data.validation) and self.selection.every) or self.objective.targets is None:
            return None
        return Validation(self, data.validation)

    def _validation_batches(
        self, data: TrainingData, request: SampleRequest
    ) -> DataLoader[Any] | None:
        wanted = self.selection.loss_samples
        if not wanted or not len(data.validation):
            return None
        opened = self.samples.open(data, request)
        count = min(wanted, opened.per_epoch)
        return DataLoader(
            torch.utils.data.Subset(opened, range(count)),  # type: ignore[arg-type]
            batch_size=min(count, self.samples.batch_size),
        )

    def load(self, run: RunContext) -> Predictor:
        """The predictor of ``run.folder / "model.safetensors"``."""
        return self.with_weights(run.folder / WEIGHTS, run.device, run.progress)

    def with_weights(
        self, weights: Path, device: str = "auto", progress: Progress = no_progress
    ) -> NetworkPredictor:
        """A predictor with the weights of a safetensors file.

        Raises:
            InputError: If the file is missing, malformed, or of another network; if the network
                predicts nothing.
        """
        targets = self.targets
        network = self.network()
        read_weights(network, weights)
        chosen = device_of(device)
        network = _fast(network).to(chosen).eval()
        window = self.inference.window
        infer: nn.Module | OpenVinoNetwork = network
        if window.engine == "openvino" and chosen.type == "cpu" and has_openvino():
            use_bf16 = window.precision == "bfloat16" and supports_bfloat16(chosen)
            infer = OpenVinoNetwork(
                network, use_bf16=use_bf16, at_once=window.at_once, kept_in=cache_folder()
            )
        return NetworkPredictor(self, targets, network, chosen, window, progress, infer)

    def _choose(
        self,
        candidates: Sequence[Mapping[str, Any]],
        validation: Sequence[Study],
        network: nn.Module,
        parts: Mapping[str, nn.Module],
        device: torch.device,
        run: RunContext,
    ) -> dict[str, Any]:
        """Put the chosen weights into ``network``; the last ones where there was no validation.

        One candidate alone has been scored in training; several are scored again, by more.
        """
        if not candidates:
            no_studies = self.selection.every and not len(validation)
            return {"epoch": "last", "why": "no validation" + (" studies" if no_studies else "")}
        if len(candidates) == 1:
            read_weights(network, run.folder / "candidates" / candidates[0]["file"], parts)
            scores = {name: value for name, value in candidates[0].items() if name != "file"}
            return {
                "epoch": candidates[0]["epoch"],
                "why": self.selection.reason(1),
                "candidates": [scores],
            }
        network.to(device).eval()
        scored: list[dict[str, float]] = []
        for done, candidate in enumerate(candidates):
            run.progress("selection", done, len(candidates))
            read_weights(network, run.folder / "candidates" / candidate["file"])
            predictor = self.predictor(network, device)
            scored.append(self.selection.score(predictor, validation, self.task))
        best = self.selection.best(scored)
        read_weights(network, run.folder / "candidates" / candidates[best]["file"], parts)
        return {
            "epoch": candidates[best]["epoch"],
            "why": self.selection.reason(len(candidates)),
            "candidates": [
                {"epoch": c["epoch"], **s} for c, s in zip(candidates, scored, strict=True)
            ],
        }

    def predictor(self, network: nn.Module, device: torch.device) -> NetworkPredictor:
        """The network as it is, applied as validation does."""
        return NetworkPredictor(self, self.targets, network, device, self.selection.window)


@dataclass(frozen=True, eq=False)
class NetworkPredictor:
    """A trained network, ready for prepared studies.

    ``infer`` takes the network's place in computing; None is the network itself.
    """

    method: NetworkMethod
    targets: Targets
    network: nn.Module
    device: torch.device
    window: SlidingWindow
    progress: Progress = no_progress
    infer: Apply | None = None

    def __getstate__(self) -> dict[str, Any]:
        """As another process gets it: it reports its progress to nobody."""
        return {**self.__dict__, "progress": no_progress}

    def __call__(self, study: Study) -> LesionMaps:
        """Lesion maps on the grid of the study's last visit.

        Raises:
            InputError: If a visit lacks a scan that the method needs.
        """
        images = channels(study, self.method.scans)
        normalize = self.method.inference.normalize
        if normalize is not None:
            images = [normalize(image) for image in images]
        visit = study.followup
        grid = next(iter(visit.scans.values())).grid
        maps = self._maps(images, None if visit.brain is None else visit.brain.array, study)
        named = dict(zip(self.targets.maps, maps, strict=True))
        extra = {name: named[name] for name in named if name not in KNOWN_MAPS}
        if "logit" in named:
            named["probability"] = expit(named["logit"])
            extra = {**extra, "logits": named["logit"]}
        return LesionMaps(
            probability=named["probability"],
            grid=grid,
            center_heatmap=named.get("heatmap"),
            offsets_vox=np.stack([named[f"offset_{axis}"] for axis in "ijk"])
            if "offset_i" in named
            else None,
            extra=extra,
        )

    def _maps(
        self, images: list[NDArray[Any]], brain: BoolArray | None, study: Study
    ) -> NDArray[np.float32]:
        """(M, I, J, K): every map of the targets."""
        inference, names = self.method.inference, self.targets.maps
        size = inference.size_vox or self.method.samples.size_vox
        infer = self.infer or self.network
        scan = self.method.scans[0].partition("@")[0]
        holder = study.followup if scan in study.followup.scans else study.baseline
        spacing_mm = holder.scans[scan].grid.spacing_mm

        def predict(
            images: Sequence[NDArray[Any]],
            brain: BoolArray | None,
            spacing_mm: tuple[float, float, float],
        ) -> NDArray[np.float32]:
            conditions = {"spacing_mm": torch.tensor(spacing_mm)}

            def activated(patches: torch.Tensor) -> torch.Tensor:
                return self.targets.activate(call_network(infer, patches, conditions))

            apply: Callable[[torch.Tensor], torch.Tensor] = activated
            if inference.dropout is not None:
                apply = inference.dropout.around(self.network, activated)
            return sliding_window_inference(
                apply,
                images,
                brain,
                _cut(size, images[0].shape, inference.multiple_vox),
                names,
                self.window,
                self.device,
                seed=None if inference.dropout is None else inference.dropout.seed,
                at_once=infer.at_once if isinstance(infer, OpenVinoNetwork) else 1,
                on_progress=lambda done, total: self.progress("windows", done, total),
            )

        if inference.planes is None:
            return predict(images, brain, spacing_mm)
        try:
            return inference.planes(predict, images, brain, spacing_mm, names)
        except InputError as error:
            raise InputError(f"sub-{study.subject}: {error}") from error


def _cut(size: Shape, shape: tuple[int, ...], multiple: int | None) -> Shape:
    """A window no longer than a volume needs, shorter by the same multiple on both sides.

    So the volume's voxels lie to the network's coarse grids as in training.
    """
    if multiple is None:
        return size
    step = 2 * multiple
    i, j, k = (s - max(0, s - n) // step * step for s, n in zip(size, shape, strict=True))
    return i, j, k


KNOWN_MAPS = ("probability", "logit", "heatmap", "offset_i", "offset_j", "offset_k")


@dataclass(frozen=True, eq=False)
class Validation:
    """A network's scores on the validation studies, while it is trained.

    Processes that train together share the studies.
    """

    method: NetworkMethod
    studies: Sequence[Study]

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """The mean of each score that ranks weights, and ``dsc``.

        A study where a score is not defined is left out of its mean.
        """
        method = self.method
        device = next(network.parameters()).device
        predictor = method.predictor(network, device)
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if together else 0
        world = torch.distributed.get_world_size() if together else 1
        mine = [
            method.selection.scores_of_one(predictor, self.studies[n], method.task)
            for n in range(rank, len(self.studies), world)
        ]
        all_of_them: list[list[dict[str, float]]] = [mine]
        if together:
            all_of_them = [[] for _ in range(world)]
            torch.distributed.all_gather_object(all_of_them, mine)
        rows = [row for part in all_of_them for row in part]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: float(np.mean([r[name] for r in rows if name in r])) for name in names}


def _fast(network: nn.Module) -> nn.Module:
    """The module with its convolutions in the memory format in which they are fast."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _loader(
    samples: NumberedSamples, batch_size: int, per_epoch: int, workers: int
) -> DataLoader[Any]:
    return DataLoader(
        samples,  # type: ignore[arg-type]  # numbered without an end
        batch_size=batch_size,
        sampler=EpochSampler(per_epoch),
        num_workers=workers,
        persistent_workers=workers > 0,
    )
