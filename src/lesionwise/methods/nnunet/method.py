"""nnU-Net trained and applied as a method."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from lesionwise.inference.weights import INITIAL, WEIGHTS
from lesionwise.io.checked import read_checked
from lesionwise.io.files import write_json, write_text
from lesionwise.methods.clean_maps import Cleanup
from lesionwise.methods.nnunet.cases import Case, CaseStep, case_of
from lesionwise.methods.nnunet.imported import UNREADABLE
from lesionwise.methods.nnunet.settings import Augmentation, InstanceHeads, Learning, Plans
from lesionwise.methods.nnunet.workspace import Workspace, require_nnunet
from lesionwise.types import InputError, Method, Predictor, RunContext, Study, Task, TrainingData

DESCRIPTION = "nnunet.json"
SUMMARY = "training.json"
"""Written last: a run that has it is done."""


class Description(TypedDict):
    """What ``nnunet.json`` holds."""

    plans: dict[str, Any]
    dataset: dict[str, Any]
    mirror_axes: list[int] | None


@dataclass(frozen=True)
class NnunetMethod:
    """nnU-Net: it takes the data's fingerprint, plans, preprocesses, trains and predicts.

    Every default is nnU-Net's; the parts say what a recipe wants otherwise.

    Attributes:
        scans: channels of each visit, in order.
        configuration: slices or volumes.
        task: what is learned.
        plans, learning, augmentation: as their names say.
        heads: center heatmap and offsets beside the segmentation; 3D only.
        case_steps: what is done to training cases before nnU-Net sees them, in order.
        within_brain: scans are set to 0 outside the visit's brain, where it is known.
        cleanup: changes the maps of a study before a threshold makes the mask; None keeps them.
        mirroring: average mirrored views in prediction, over the axes that training mirrored.
        overlap: of neighboring windows in prediction.
        precision: of prediction; "bfloat16" takes effect where the processor computes it natively
            and there are no heads. On a GPU "float32" is nnU-Net's own mixed precision.
        engine: what computes the network on a processor: "openvino" where it is installed, else
            torch.
    """

    scans: tuple[str, ...]
    configuration: Literal["2d", "3d_fullres"] = "3d_fullres"
    task: Task = "lesions"
    plans: Plans = field(default_factory=Plans)
    learning: Learning = field(default_factory=Learning)
    augmentation: Augmentation = field(default_factory=Augmentation)
    heads: InstanceHeads | None = None
    case_steps: tuple[CaseStep, ...] = ()
    within_brain: bool = True
    cleanup: Cleanup | None = None
    mirroring: bool = True
    overlap: float = 0.5
    precision: Literal["float32", "bfloat16"] = "float32"
    engine: Literal["torch", "openvino"] | None = None

    def __post_init__(self) -> None:
        if self.heads is not None and self.configuration == "2d":
            raise ValueError("instance heads need a 3D configuration")
        if self.heads is not None and self.learning.loss != "dice+ce":
            raise ValueError("instance heads go with the loss dice+ce")

    uses_validation = True
    """nnU-Net's trainer validates, and schedules may follow it."""

    def members(self) -> tuple[Method, ...]:
        """None."""
        return ()

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Train and leave ``model.safetensors`` with ``nnunet.json`` (plans and the like).

        ``run.folder`` also gets ``log.csv`` (a row per epoch), ``training.json`` (a summary) and
        ``nnunet/``, nnU-Net's own tree, in which a killed training resumes; when it has ended,
        raw and preprocessed data are removed from it.

        Raises:
            InputError: If there is nothing to learn from, a study lacks a scan or its reference,
                or nnunetv2 is missing.
        """
        space = Workspace(run.folder / "nnunet")
        if not run.resume:
            shutil.rmtree(space.root, ignore_errors=True)
        elif (run.folder / SUMMARY).is_file():
            return
        with space.in_use(run.progress) as progress:
            from lesionwise.methods.nnunet import arrays, plan

            begun = space.raw / "dataset.json"
            if not begun.is_file():
                plan.write_raw(
                    space,
                    self._training_cases(data.training, run),
                    (self._case(study) for study in data.validation),
                    self._channel_names(data.training),
                    self.learning.loss == "dice+bce",
                )
            if not (space.preprocessed / f"{plan.PLANS_NAME}.json").is_file():
                plan.make_plans(space, self.plans, self.configuration, progress)
            plans = arrays.preprocess(space, self.configuration, self.heads is not None, progress)
            self._train(space, plans, replace(run, progress=progress))

    def load(self, run: RunContext) -> Predictor:
        """The predictor of ``run.folder``.

        Raises:
            InputError: If something is missing or malformed.
        """
        require_nnunet()
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from lesionwise.inference.devices import device_of
        from lesionwise.methods.nnunet.checkpoints import load_network
        from lesionwise.methods.nnunet.networks import checked_axes, checked_network
        from lesionwise.methods.nnunet.predictor import NnunetPredictor, computed_by
        from lesionwise.methods.nnunet.trainer import HEADS

        path = run.folder / DESCRIPTION
        described = read_checked(path, Description)
        plans, dataset = described["plans"], described["dataset"]
        try:
            manager = PlansManager(plans)
            settings = manager.get_configuration(self.configuration)
            segments = manager.get_label_manager(dataset).num_segmentation_heads
            channels = len(dataset["channel_names"])
            outputs = segments + (HEADS if self.heads else 0)
            network = checked_network(settings, channels, outputs, path)
            axes = checked_axes(described["mirror_axes"], settings, path)
        except InputError:
            raise
        except UNREADABLE as error:
            raise InputError(f"{path}: malformed ({error!r:.200})") from error
        load_network(network, run.folder / WEIGHTS)
        device = device_of(run.device)
        heads = self.heads is not None
        return NnunetPredictor(
            plans=plans,
            dataset=dataset,
            configuration=self.configuration,
            networks=(computed_by(network, self.engine, self.precision, heads, device),),
            scans=self.scans,
            mirror_axes=axes if self.mirroring else (),
            lesion_labels=(1,),
            within_brain=self.within_brain,
            keep_voxels=self.plans.keep_voxels,
            heads=heads,
            overlap=self.overlap,
            device=device,
            precision=self.precision,
            cleanup=self.cleanup,
            progress=run.progress,
        )

    def _case(self, study: Study) -> Case:
        return case_of(study, self.scans, self.task, self.within_brain, self.plans.keep_voxels)

    def _training_cases(self, studies: Sequence[Study], run: RunContext) -> Iterator[Case]:
        for number, study in enumerate(studies):
            rng = np.random.default_rng([run.seed, number])
            cases = [self._case(study)]
            for step in self.case_steps:
                cases = [made for case in cases for made in step(case, rng)]
            yield from cases

    def _channel_names(self, studies: Sequence[Study]) -> list[str]:
        if not len(studies):
            raise InputError("nothing to learn from: no training study")
        visits = len(studies[0].visits)
        if visits == 1:
            return list(self.scans)
        names = ["baseline", *(f"visit{n}" for n in range(2, visits)), "followup"]
        return [f"{scan}_{name}" for name in names for scan in self.scans]

    def _train(self, space: Workspace, plans: dict[str, Any], run: RunContext) -> None:
        import torch

        from lesionwise.inference.devices import device_of
        from lesionwise.methods.nnunet.checkpoints import (
            load_network,
            read_checkpoint,
            save_network,
        )
        from lesionwise.methods.nnunet.trainer import LesionTrainer

        described = read_checked(space.raw / "dataset.json", dict[str, Any])
        channels = len(described["channel_names"])
        shutil.copyfile(space.raw / "splits_final.json", space.preprocessed / "splits_final.json")
        device = device_of(run.device)
        torch.manual_seed(run.seed)
        trainer = LesionTrainer(plans, self.configuration, 0, described, device)
        last_visit = range(channels - len(self.scans), channels)
        trainer.use(self.learning, self.augmentation, self.heads, last_visit)
        trainer.seed = run.seed
        trainer.max_minutes, trainer.max_steps = run.max_minutes, run.max_steps
        trainer.workers = min(run.workers, os.cpu_count() or 1)
        trainer.progress = run.progress
        trainer.initialize()
        folder = Path(trainer.output_folder)
        final, latest = folder / "checkpoint_final.pth", folder / "checkpoint_latest.pth"
        if final.is_file():
            trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            trainer.load_checkpoint(read_checkpoint(final))
        else:
            if latest.is_file():
                trainer.load_checkpoint(read_checkpoint(latest))
            elif (run.folder / INITIAL).is_file():
                load_network(trainer.network, run.folder / INITIAL)
            trainer.run_training()
        network = getattr(trainer.network, "_orig_mod", trainer.network)
        save_network(network.state_dict(), network, run.folder / WEIGHTS)
        axes = trainer.inference_allowed_mirroring_axes
        description: Description = {
            "plans": plans,
            "dataset": described,
            "mirror_axes": None if axes is None else list(axes),
        }
        write_json(run.folder / DESCRIPTION, description)
        self._write_log(trainer, run, plans)
        for part in ("raw", "preprocessed"):
            shutil.rmtree(space.root / part, ignore_errors=True)

    def _write_log(self, trainer: Any, run: RunContext, plans: dict[str, Any]) -> None:
        history = trainer.history()
        columns = {"loss": "total", "validation_loss": "validation_loss"}
        columns |= {"validation_dsc": "validation_dsc"}
        rows = [",".join(["epoch", "learning_rate", *columns])]
        for row in history:
            values = [row[name] for name in ("learning_rate", *columns.values())]
            rows.append(",".join([str(row["epoch"]), *(f"{value:.6g}" for value in values)]))
        write_text(run.folder / "log.csv", "\n".join(rows) + "\n")
        planned = plans["configurations"][self.configuration]
        epochs = len(history)
        summary = {
            "epochs": epochs,
            "steps": trainer.steps,
            "patches": trainer.steps * planned["batch_size"],
            "minutes": round(trainer.minutes, 2),
            "max_minutes": run.max_minutes,
            "max_steps": run.max_steps,
            "training_cases": int(trainer.dataset_json["numTraining"]),
            "patch_size_vox": planned["patch_size"],
            "spacing_mm": planned["spacing"],
            "batch_size": planned["batch_size"],
            "parameters": sum(p.numel() for p in trainer.network.parameters()),
            "device": str(trainer.device),
            "chosen": {"epoch": "last", "why": "nnU-Net predicts with its final weights"},
        }
        write_json(run.folder / SUMMARY, summary)
