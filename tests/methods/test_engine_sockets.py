"""The three sockets of the engine carry what no present recipe needs, without a change to it.

One small recipe each: a frozen critic inside the loss, pre-training without labels whose encoder is
carried over, two losses on two data sources, and an output smaller than its input.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import torch
from engine import EXACT, METHOD, PAIRS, SIDE, dice, longer, pair_of, unlabelled, visit_of
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from lesionwise.inference.views import MonteCarlo, Planes
from lesionwise.inference.window import SlidingWindow, call_network
from lesionwise.learning.objective import BySource, Supervised
from lesionwise.learning.parts import Frozen, MomentumCopy, Trained
from lesionwise.learning.positions import EverySlice
from lesionwise.learning.samples import (
    CombinedSamples,
    ListedPatches,
    Patches,
    UnlabelledPatches,
    studies_of,
)
from lesionwise.methods.composite import Ensemble, Pretrained
from lesionwise.methods.network import Inference
from lesionwise.networks.blocks import Head
from lesionwise.networks.planes import InPlane
from lesionwise.types import Auxiliary, InputError, RunContext, TrainingData, all_methods


def score(maps, study):
    found = maps.probability > 0.5
    if study.changes:
        return dice(found, study.changes["new"].array > 0)
    return dice(found, study.followup.labels["instances"].array > 0)


# --- a frozen critic inside the loss ---------------------------------------------------------


class Critic(nn.Module):
    """From two masks (B, 2, …) to a score (B, 1) in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.score = nn.Linear(8, 1)

    def forward(self, masks):
        return torch.sigmoid(self.score(self.body(masks).mean(dim=(2, 3, 4))))


@dataclass(frozen=True)
class Agreement:
    """Teaches a critic how much a mask agrees with one that was spoiled."""

    targets: None = field(default=None, init=False)

    def make(self, sample):
        return {"mask": (sample.instances > 0)[None].astype(np.float32)}

    def __call__(self, network, parts, batch):
        mask = batch["mask"]
        kept = torch.rand(len(mask), 1, 1, 1, 1)
        degraded = mask * (torch.rand_like(mask) < kept)
        loss = functional.mse_loss(network(torch.cat([mask, degraded], 1)), kept.flatten(1))
        return {"total": loss}


@dataclass(frozen=True)
class WithCritic:
    """A supervised objective, and how little the critic likes the prediction."""

    supervised: Supervised
    weight: float = 0.2

    @property
    def targets(self):
        return self.supervised.targets

    def make(self, sample):
        return self.supervised.make(sample)

    def __call__(self, network, parts, batch):
        output = call_network(network, batch["image"], batch)
        losses = self.supervised.loss(output, batch)
        found = self.targets.activate(output)
        disliked = 1 - parts["critic"](torch.cat([batch["mask"], found], 1)).mean()
        return {**losses, "critic": disliked, "total": losses["total"] + self.weight * disliked}


CRITIC = replace(longer(METHOD, 2, 8), network=Critic, objective=Agreement())
JUDGED = replace(
    longer(METHOD, 4, 40),
    objective=WithCritic(METHOD.objective),
    parts=(Frozen("critic", Critic, first=CRITIC),),
)


def weights(path, prefix=""):
    with safe_open(str(path), framework="pt") as file:
        names = [n for n in file.keys() if n.startswith(prefix)]  # noqa: SIM118  (no mapping)
        return {n.removeprefix(prefix): file.get_tensor(n) for n in names}


def test_a_critic_is_trained_first_and_then_frozen_inside_the_loss(tmp_path):
    run = RunContext(tmp_path)
    JUDGED.fit(TrainingData([visit_of()], [visit_of(1)]), run)
    learned = weights(tmp_path / "critic" / "model.safetensors")
    kept = weights(tmp_path / "model.safetensors", "parts.critic.")
    assert kept.keys() == learned.keys() == Critic().state_dict().keys()
    for name, value in learned.items():
        torch.testing.assert_close(kept[name], value, rtol=0, atol=0)
    assert "critic" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert score(JUDGED.load(run)(visit_of()), visit_of()) > 0.9
    assert all_methods(JUDGED) == (JUDGED, CRITIC)


def test_gradients_pass_through_a_frozen_part_and_do_not_reach_its_weights():
    critic = Frozen("critic", Critic).build(nn.Identity())
    network = METHOD.network()
    shape = (1, 1, SIDE, SIDE, SIDE)
    sample = {"image": torch.randn(shape), "mask": torch.ones(shape)}
    losses = WithCritic(METHOD.objective)(network, {"critic": critic}, sample)
    losses["critic"].backward()
    assert sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in critic.parameters())


# --- pre-training without labels, of which the encoder is carried over -----------------------


class Encoder(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, padding=1), nn.ReLU()
        )


class Encoded(nn.Module):
    """An encoder and a head of some channels."""

    def __init__(self, out_channels):
        super().__init__()
        self.encoder = Encoder()
        self.head = Head(8, out_channels)

    def forward(self, image):
        return self.head(self.encoder(image))


@dataclass(frozen=True)
class Reconstruction:
    """The image from a noisy copy of it."""

    targets: None = field(default=None, init=False)

    def make(self, sample):
        return {}

    def __call__(self, network, parts, batch):
        image = batch["image"]
        return {"total": functional.mse_loss(network(image + 0.3 * torch.randn_like(image)), image)}


SELF_SUPERVISED = replace(
    METHOD,
    network=partial(Encoded, 1),
    samples=UnlabelledPatches(
        (8, 8, 8), batch_size=2, per_epoch=8, auxiliary=Auxiliary("unlabelled", labelled=False)
    ),
    objective=Reconstruction(),
)
TRANSFERRED = Pretrained(
    SELF_SUPERVISED, replace(METHOD, network=partial(Encoded, 2)), auxiliary=None, only="encoder."
)


def test_an_encoder_learned_without_labels_begins_the_training(tmp_path):
    data = TrainingData([visit_of()], [visit_of(1)], {"unlabelled": [unlabelled(visit_of(2))]})
    start = replace(TRANSFERRED, then=replace(TRANSFERRED.then, optimization=replace(
        METHOD.optimization, learning_rate=0.0, epochs=1
    )))  # fmt: skip
    start.fit(data, RunContext(tmp_path))
    first = weights(tmp_path / "pretrained" / "model.safetensors")
    then = weights(tmp_path / "model.safetensors")
    for name in ("encoder.0.weight", "encoder.2.bias"):
        torch.testing.assert_close(first[name], then[name])
    assert first["head.weight"].shape != then["head.weight"].shape


def test_a_network_that_was_trained_for_its_weights_alone_predicts_nothing(tmp_path):
    data = TrainingData([visit_of()], [], {"unlabelled": [unlabelled(visit_of(2))]})
    SELF_SUPERVISED.fit(data, RunContext(tmp_path))
    with pytest.raises(InputError, match="only trained for its weights"):
        SELF_SUPERVISED.load(RunContext(tmp_path))


def test_a_set_that_was_not_given_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="--auxiliary unlabelled=DATA"):
        TRANSFERRED.fit(TrainingData([visit_of()]), RunContext(tmp_path))


# --- two losses on two data sources ----------------------------------------------------------


@dataclass(frozen=True)
class Consistency:
    """The same answer for a noisy copy, on images without labels."""

    targets: None = field(default=None, init=False)

    def make(self, sample):
        return {}

    def __call__(self, network, parts, batch):
        image = batch["image"]
        noisy = network(image + 0.1 * torch.randn_like(image))
        return {"total": functional.mse_loss(noisy, network(image))}


def semi_supervised():
    sources = (
        ("labelled", Patches((SIDE,) * 3, batch_size=2, per_epoch=40)),
        ("unlabelled", UnlabelledPatches((8, 8, 8), auxiliary=Auxiliary("more", labelled=False))),
    )
    objectives = (("labelled", 1.0, METHOD.objective), ("unlabelled", 0.1, Consistency()))
    return replace(
        METHOD,
        samples=CombinedSamples(sources),
        objective=BySource(objectives),
        optimization=replace(METHOD.optimization, epochs=4),
    )


def test_two_losses_learn_from_two_data_sources(tmp_path):
    method = semi_supervised()
    data = TrainingData([visit_of()], [visit_of(1)], {"more": [unlabelled(visit_of(2))]})
    run = RunContext(tmp_path)
    method.fit(data, run)
    columns = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"labelled.total", "unlabelled.total", "total"} <= set(columns)
    assert score(method.load(run)(visit_of()), visit_of()) > 0.9


# --- an output smaller than its input --------------------------------------------------------


class Valid(nn.Module):
    """Three convolutions without padding: 3 voxels less on every side."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(1, 8, 3),
            nn.ReLU(),
            nn.Conv3d(8, 8, 3),
            nn.ReLU(),
            nn.Conv3d(8, 8, 3),
            nn.ReLU(),
        )
        self.head = Head(8, 2)

    def forward(self, image):
        return self.head(self.body(image))


def test_an_output_smaller_than_its_input_is_learned_and_covers_the_volume(tmp_path):
    method = replace(longer(METHOD, 4, 80), network=Valid)
    run = RunContext(tmp_path)
    method.fit(TrainingData([visit_of()]), run)
    predictor = method.load(run)
    assert score(predictor(visit_of()), visit_of()) > 0.9

    def undecided(patches):
        return torch.zeros(len(patches), 2, *(n - 6 for n in patches.shape[2:]))

    everywhere = replace(predictor, infer=undecided)(visit_of()).probability
    np.testing.assert_allclose(everywhere, np.full((SIDE,) * 3, 0.5))


class Flat(nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1), nn.ReLU(), nn.Dropout(0.1),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, image):
        return self.body(image)


def flat(slices):
    return nn.Sequential(InPlane(Flat(slices)), Head(16, 2))


def test_three_slices_in_and_the_middle_one_out(tmp_path):
    method = replace(
        METHOD,
        network=partial(flat, 3),
        samples=ListedPatches(EverySlice(), (SIDE, SIDE, 3), batch_size=4),
        optimization=replace(METHOD.optimization, epochs=40),
        inference=Inference(replace(EXACT, windows_per_batch=4)),
    )
    run = RunContext(tmp_path)
    method.fit(TrainingData([visit_of()]), run)
    assert score(method.load(run)(visit_of()), visit_of()) > 0.9


def test_three_planes_are_learned_and_predicted_by_one_network(tmp_path):
    method = replace(
        METHOD,
        network=partial(flat, 1),
        samples=ListedPatches(EverySlice((0, 1, 2)), (SIDE, SIDE, 1), batch_size=4),
        optimization=replace(METHOD.optimization, epochs=20),
        inference=Inference(
            replace(EXACT, windows_per_batch=4), planes=Planes(combine="vote"),
            dropout=MonteCarlo(passes=3, seed=1),
        ),
    )  # fmt: skip
    run = RunContext(tmp_path)
    method.fit(TrainingData([visit_of()]), run)
    maps = method.load(run)(visit_of())
    assert set(np.unique(np.round(maps.probability * 3, 4))) <= {0.0, 1.0, 2.0, 3.0}
    assert score(maps, visit_of()) > 0.85
    again = method.load(run)(visit_of())
    np.testing.assert_array_equal(maps.probability, again.probability)


# --- conditions, momentum copies, parts that learn -------------------------------------------


class BySpacing(nn.Module):
    """A network that is told the voxel size."""

    conditions = ("spacing_mm",)

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(3, 8)
        self.body = nn.Conv3d(1, 8, 3, padding=1)
        self.head = Head(8, 2)
        self.seen = []

    def forward(self, image, *, spacing_mm):
        self.seen.append(spacing_mm.detach().clone())
        gain = self.scale(spacing_mm)[:, :, None, None, None]
        return self.head(functional.relu(self.body(image) * (1 + gain)))


def test_a_network_is_told_the_spacing_in_training_and_in_prediction(tmp_path):
    method = replace(METHOD, network=BySpacing)
    study = visit_of(spacing=(1.0, 2.0, 0.5))
    run = RunContext(tmp_path)
    method.fit(TrainingData([study], [study]), run)
    predictor = method.load(run)
    predictor(study)
    assert predictor.network.seen
    for seen in predictor.network.seen:
        assert seen.tolist() == [[1.0, 2.0, 0.5]]


def test_a_momentum_copy_follows_the_network_slowly():
    network = nn.Conv3d(1, 1, 1)
    rule = MomentumCopy("slow", decay=0.75)
    copied = rule.build(network)
    before = network.weight.detach().clone()
    with torch.no_grad():
        network.weight += 4.0
    rule.after_step(copied, network)
    torch.testing.assert_close(copied.weight, before + 1.0)
    assert not copied.weight.requires_grad


@dataclass(frozen=True)
class Shifted:
    """An objective whose part has to learn too: the network's output moved by it."""

    supervised: Supervised

    @property
    def targets(self):
        return self.supervised.targets

    def make(self, sample):
        return self.supervised.make(sample)

    def __call__(self, network, parts: Mapping[str, nn.Module], batch):
        return self.supervised.loss(parts["shift"](network(batch["image"])), batch)


def test_a_part_learns_together_with_the_network(tmp_path):
    begin = partial(nn.Conv3d, 2, 2, 1)
    method = replace(
        METHOD,
        objective=Shifted(METHOD.objective),
        parts=(Trained("shift", begin), MomentumCopy("slow", 0.9)),
    )
    method.fit(TrainingData([visit_of()]), RunContext(tmp_path))
    kept = weights(tmp_path / "model.safetensors", "parts.shift.")
    assert kept.keys() == {"weight", "bias"}
    assert weights(tmp_path / "model.safetensors", "parts.slow.").keys() == (
        METHOD.network().state_dict().keys()
    )
    torch.manual_seed(0)
    METHOD.network()
    assert not torch.equal(kept["weight"], begin().weight)


def test_a_training_with_parts_goes_on_after_a_kill(tmp_path):
    class Kill(Exception):  # noqa: N818
        pass

    def kill(stage, done, total):
        if stage.startswith("training") and done == 2:
            raise Kill

    method = replace(
        METHOD,
        objective=Shifted(METHOD.objective),
        parts=(Trained("shift", partial(nn.Conv3d, 2, 2, 1)), MomentumCopy("slow", 0.9)),
    )
    data = TrainingData([visit_of()])
    method.fit(data, RunContext(tmp_path / "whole", seed=3))
    killed = RunContext(tmp_path / "killed", seed=3, resume=True)
    with pytest.raises(Kill):
        method.fit(data, replace(killed, progress=kill))
    method.fit(data, killed)
    whole = weights(tmp_path / "whole" / "model.safetensors")
    for name, value in weights(tmp_path / "killed" / "model.safetensors").items():
        torch.testing.assert_close(value, whole[name])


def test_channels_of_one_visit_alone_are_learned_from(tmp_path):
    study = pair_of()
    flair = [v.scans["flair"] for v in study.visits]
    difference = replace(flair[1], array=flair[1].array - flair[0].array)
    last = replace(study.followup, scans={**study.followup.scans, "difference": difference})
    study = replace(study, visits=(study.baseline, last))
    method = replace(longer(PAIRS, 4, 32), network=METHOD.network, scans=("difference@followup",))
    run = RunContext(tmp_path)
    method.fit(TrainingData([study]), run)
    assert score(method.load(run)(study), study) > 0.9


def test_a_window_of_prediction_may_differ_from_the_patch(tmp_path):
    method = replace(METHOD, inference=Inference(SlidingWindow(), size_vox=(8, 8, 8)))
    run = RunContext(tmp_path)
    seen = []
    method.fit(TrainingData([visit_of()]), run)
    predictor = method.load(run)
    network = predictor.network

    def infer(patches):
        seen.append(tuple(patches.shape[2:]))
        return network(patches)

    replace(predictor, infer=infer)(visit_of())
    assert set(seen) == {(8, 8, 8)}


def test_the_members_of_an_ensemble_begin_with_the_same_learned_encoder(tmp_path):
    kept = replace(TRANSFERRED.then, optimization=replace(
        METHOD.optimization, learning_rate=0.0, epochs=1
    ))  # fmt: skip
    method = replace(TRANSFERRED, then=Ensemble((kept, kept), folds=2))
    data = TrainingData([visit_of(), visit_of(1)], [], {"unlabelled": [unlabelled(visit_of(2))]})
    method.fit(data, RunContext(tmp_path))
    first = weights(tmp_path / "pretrained" / "model.safetensors")["encoder.0.weight"]
    for number in range(2):
        member = weights(tmp_path / f"member-{number}" / "model.safetensors")
        torch.testing.assert_close(first, member["encoder.0.weight"])


def test_the_training_studies_take_the_place_of_a_set_that_is_not_required():
    data = TrainingData([visit_of()])
    optional = Auxiliary("unlabelled", labelled=False, required=False)
    assert studies_of(data, optional) is data.training
    given = replace(data, auxiliary={"unlabelled": [visit_of(2)]})
    assert [s.subject for s in studies_of(given, optional)] == ["s2"]
    with pytest.raises(InputError, match="--auxiliary unlabelled=DATA"):
        studies_of(data, replace(optional, required=True))
