"""A network that looks at crops around candidates, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.inference.weights import WEIGHTS
from lesionwise.inference.window import SlidingWindow, call_network
from lesionwise.learning.candidate_crops import Box, CandidateCrops, UnequalCrops, boxes_of
from lesionwise.learning.channels import channels
from lesionwise.learning.spatial_transforms import crop
from lesionwise.methods.network import NetworkMethod, NetworkPredictor
from lesionwise.types import (
    Grid,
    LabelArray,
    LesionMaps,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
)

Float32 = NDArray[np.float32]


class Merge(Protocol):
    """How what a network says about crops becomes one map."""

    def __call__(
        self,
        crops: Iterable[tuple[int, Box, Float32]],
        labels: LabelArray,
        grid: Grid,
    ) -> Float32:
        """(I, J, K) probability.

        Args:
            crops: of each candidate its number, its crop, and the network's probability there:
                the crop's shape, or (1, 1, 1) for one that judges the crop as a whole.
            labels: the candidates.
            grid: of the study.
        """


@dataclass(frozen=True)
class NearestCenter:
    """Each voxel has the value of the crop whose center is nearest, in mm; 0 where none lies.

    At equal distances the candidate of the smaller number counts.

    Source: the chapter of recipe ``roi-filter``, section 2.4.
    """

    def __call__(
        self, crops: Iterable[tuple[int, Box, Float32]], labels: LabelArray, grid: Grid
    ) -> Float32:
        probability = np.zeros(labels.shape, dtype=np.float32)
        nearest = np.full(labels.shape, np.inf, dtype=np.float32)
        axes_mm = grid.axes_mm
        for _, box, found in crops:
            low = [max(0, s) for s in box.start]
            high = [
                min(n, s + size)
                for n, s, size in zip(labels.shape, box.start, box.size, strict=True)
            ]
            there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            within = tuple(
                slice(a - s, b - s) for a, b, s in zip(low, high, box.start, strict=True)
            )
            steps = np.ogrid[there]
            shift = [step - middle for step, middle in zip(steps, box.center_vox, strict=True)]
            distance = np.zeros([b - a for a, b in zip(low, high, strict=True)])
            for row in axes_mm:
                distance += (row[0] * shift[0] + row[1] * shift[1] + row[2] * shift[2]) ** 2
            distance = distance.astype(np.float32)
            nearer = distance < nearest[there]
            nearest[there][nearer] = distance[nearer]
            probability[there][nearer] = found[within][nearer]
        return probability


@dataclass(frozen=True)
class ScoreOfCandidate:
    """Every voxel of a candidate has the probability that the candidate is a lesion; 0 elsewhere.

    Of a crop with more than one value the largest counts.
    """

    def __call__(
        self, crops: Iterable[tuple[int, Box, Float32]], labels: LabelArray, grid: Grid
    ) -> Float32:
        scores = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.float32)
        for number, _, found in crops:
            scores[number] = found.max()
        return scores[labels]


@dataclass(frozen=True)
class CandidateNetwork:
    """Candidates, and a network that is trained on crops around them and asked about those alone.

    The weights at the end of the training are taken: the scores that choose among weights come from
    whole volumes, which this network never sees. A study without candidates has a probability of 0
    everywhere.

    Attributes:
        network: its samples are ``CandidateCrops`` or ``UnequalCrops``; they name the candidates
            and their crops, in training as here. A crop is seen whole here, however large.
        merge: how its answers become one map.
    """

    network: NetworkMethod
    merge: Merge = field(default_factory=NearestCenter)

    def __post_init__(self) -> None:
        if not isinstance(self.network.samples, CandidateCrops | UnequalCrops):
            raise ValueError("the network's samples must be crops around candidates")

    @property
    def crops(self) -> CandidateCrops:
        """Which candidates there are, and their crops."""
        samples = self.network.samples
        if isinstance(samples, UnequalCrops):
            return samples.crops
        assert isinstance(samples, CandidateCrops)
        return samples

    uses_validation = False
    """Nothing is chosen by validation studies."""

    def members(self) -> tuple[Method, ...]:
        """The network."""
        return (self.network,)

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Train the network on the candidates of the training studies.

        Raises:
            InputError: If no candidate touches a lesion that is to be found.
        """
        self.network.fit(replace(data, validation=()), run)

    def load(self, run: RunContext) -> Predictor:
        """The network, asked about the candidates of a study."""
        # windows play no part, and nothing is to be compiled for them
        plain = replace(self.network.inference, window=SlidingWindow())
        network = replace(self.network, inference=plain)
        predictor = network.with_weights(run.folder / WEIGHTS, run.device, run.progress)
        crops = self.crops

        def predict(study: Study) -> LesionMaps:
            labels = crops.propose(study)
            grid = next(iter(study.followup.scans.values())).grid
            boxes = [
                (number, box) for number, _, box in boxes_of(labels, crops.boxes, crops.size_vox)
            ]
            judged = _judged(predictor, study, boxes)
            return LesionMaps(self.merge(judged, labels, grid), grid)

        return predict


def _judged(
    predictor: NetworkPredictor, study: Study, boxes: Sequence[tuple[int, Box]]
) -> Iterator[tuple[int, Box, Float32]]:
    """What the network says about each crop."""
    method = predictor.method
    images = channels(study, method.scans)
    if method.inference.normalize is not None:
        images = [method.inference.normalize(image) for image in images]
    spacing_mm = next(iter(study.followup.scans.values())).grid.spacing_mm
    conditions = {"spacing_mm": torch.tensor(spacing_mm)}
    for done, (number, box) in enumerate(boxes):
        predictor.progress("candidates", done, len(boxes))
        seen = np.stack([crop(image, box.start, box.size) for image in images])
        patch = torch.from_numpy(seen.astype(np.float32, copy=False))[None].to(predictor.device)
        with torch.inference_mode():
            output = call_network(predictor.network, patch, conditions)
            found = predictor.targets.activate(output)[0, 0].float().cpu().numpy()
        yield number, box, found
