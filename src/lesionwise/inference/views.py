"""Several predictions of one volume, averaged: mirror images, planes, dropout.

``mirrored_mean`` and ``MonteCarlo`` work on windows, around the function that a sliding window
calls. ``Planes`` and ``MirroredPlanes`` work on whole volumes, around a function that predicts one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from lesionwise.types import BoolArray, FloatArray, InputError

Apply: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From patches (B, C, I, J, K) to maps (B, M, I, J, K), activations included."""
PredictVolume: TypeAlias = Callable[
    [Sequence[FloatArray], BoolArray | None, tuple[float, float, float]], NDArray[np.float32]
]
"""From C images (I, J, K), the brain (or None) and the spacing in mm to maps (M, I, J, K)."""
AXES = "ijk"


def mirrored_mean(
    apply: Apply, patches: torch.Tensor, maps: Sequence[str], axes: Sequence[int]
) -> torch.Tensor:
    """The mean over every mirror image, mirrored back: 2 to the number of axes predictions.

    An offset that points to the right in a mirror image points to the left: the component along
    each mirrored axis changes sign. The image as it is comes first, then the last axis changes
    fastest; the sum is float32.

    Args:
        apply: the network with its activations.
        patches: (B, C, I, J, K).
        maps: names of the maps that ``apply`` returns; ``offset_i``, ``offset_j`` and
            ``offset_k`` are components along the axes of ``patches``.
        axes: 0, 1, 2 for i, j, k; none gives one prediction.

    Returns:
        (B, M, I, J, K) float32.

    Example:
        >>> image = torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3, 1, 1)
        >>> network = lambda patches: patches.roll(1, dims=2)  # one voxel to the right
        >>> mirrored_mean(network, image, ("probability",), axes=(0,)).flatten().tolist()
        [0.5, 0.0, 0.5]
    """
    total: torch.Tensor | None = None
    views = list(product(*((False, True) for _ in axes)))
    for view in views:
        flipped = [axis for axis, flip in zip(axes, view, strict=True) if flip]
        dims = [axis + 2 for axis in flipped]
        output = apply(patches.flip(dims) if dims else patches).float()
        if dims:
            output = output.flip(dims)
            for axis in flipped:
                name = f"offset_{AXES[axis]}"
                if name in maps:
                    output[:, maps.index(name)] *= -1
        total = output if total is None else total + output
    assert total is not None
    return total / len(views)


class Views(Protocol):
    """Several predictions of a whole volume, joined."""

    def __call__(
        self,
        predict: PredictVolume,
        images: Sequence[FloatArray],
        brain: BoolArray | None,
        spacing_mm: tuple[float, float, float],
        maps: Sequence[str],
    ) -> NDArray[np.float32]:
        """Maps of the volume, (M, I, J, K) float32; arguments are those of ``Planes``."""


@dataclass(frozen=True)
class Planes:
    """A volume predicted with each axis in turn as the last one, as networks on planes need.

    The other two axes keep their order: (j, k, i) for axis 0, (i, k, j) for axis 1 and
    (i, j, k) for axis 2. Maps are carried back, offset components with their axes. Voxels
    outside the brain may be predicted in some orientations only; the others count as 0, for a
    ``logit`` as ``window.UNSEEN_LOGIT``.

    Attributes:
        axes: that become the last one, in the order of computing and summing.
        combine: "mean" averages all maps. "vote" replaces the probability by the share of axes
            whose probability exceeds ``threshold`` (one of exactly the threshold does not), so
            that more than 0.5 is the strict majority; other maps are averaged.
        threshold: of one vote.

    Example:
        >>> flair, spacing_mm = np.zeros((4, 5, 6)), (1.0, 1.0, 3.0)
        >>> predict = lambda images, brain, spacing_mm: np.full((1, *images[0].shape), 0.8)
        >>> maps = Planes(combine="vote")(predict, [flair], None, spacing_mm, ("probability",))
        >>> maps.shape, float(maps.min())
        ((1, 4, 5, 6), 1.0)
    """

    axes: tuple[int, ...] = (0, 1, 2)
    combine: Literal["mean", "vote"] = "mean"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not self.axes or not set(self.axes) <= {0, 1, 2}:
            raise ValueError(f"axes must be some of 0, 1 and 2, not {self.axes}")

    def __call__(
        self,
        predict: PredictVolume,
        images: Sequence[FloatArray],
        brain: BoolArray | None,
        spacing_mm: tuple[float, float, float],
        maps: Sequence[str],
    ) -> NDArray[np.float32]:
        """Maps of the volume, (M, I, J, K) float32.

        Args:
            predict: predicts a volume; called once per axis with axes, brain and spacing in the
                axis's order.
            images: C arrays (I, J, K).
            brain: (I, J, K), or None.
            spacing_mm: along i, j, k.
            maps: names of the maps that ``predict`` returns; ``offset_i`` and so on are
                components along the axes it was given.

        Raises:
            ValueError: If votes are counted and no map is a probability.
            InputError: If a plane would be one voxel wide: the volume is a single slice across it.
        """
        for other, length in enumerate(images[0].shape):
            if length == 1 and any(axis != other for axis in self.axes):
                raise InputError(
                    f"only one slice along {AXES[other]}, but planes across it are needed"
                )
        if self.combine == "vote" and "probability" not in maps:
            raise ValueError("votes are counted on a map named probability; there is none")
        total: NDArray[np.float32] | None = None
        for axis in self.axes:
            order = (*(other for other in range(3) if other != axis), axis)
            output = predict(
                [image.transpose(order) for image in images],
                None if brain is None else brain.transpose(order),
                (spacing_mm[order[0]], spacing_mm[order[1]], spacing_mm[order[2]]),
            )
            output = _carried_back(output, maps, order)
            if self.combine == "vote":
                place = maps.index("probability")
                output[place] = output[place] > self.threshold
            total = output if total is None else total + output
        assert total is not None
        total /= len(self.axes)
        return total


@dataclass(frozen=True)
class MirroredPlanes:
    """The mean of ``planes`` over the volume and its mirror images.

    Every combination of the axes is predicted: 2 to the number of axes times. They are axes of the
    volume, whatever the plane: 0 exchanges left and right. Maps are mirrored back, and offset
    components along a mirrored axis change sign.

    Attributes:
        planes: of each image.
        axes: of the volume, that are mirrored.

    Example:
        ``MirroredPlanes(Planes(), axes=(0,))`` joins six predictions.
    """

    planes: Planes
    axes: tuple[int, ...] = (0,)

    def __call__(
        self,
        predict: PredictVolume,
        images: Sequence[FloatArray],
        brain: BoolArray | None,
        spacing_mm: tuple[float, float, float],
        maps: Sequence[str],
    ) -> NDArray[np.float32]:
        """Maps of the volume, (M, I, J, K) float32; arguments are those of ``Planes``."""
        total: NDArray[np.float32] | None = None
        views = list(product(*((False, True) for _ in self.axes)))
        for view in views:
            flipped = tuple(axis for axis, flip in zip(self.axes, view, strict=True) if flip)
            output = self.planes(
                predict,
                [np.flip(image, flipped) for image in images],
                None if brain is None else np.flip(brain, flipped),
                spacing_mm,
                maps,
            )
            output = np.flip(output, tuple(axis + 1 for axis in flipped)).copy()
            for axis in flipped:
                if f"offset_{AXES[axis]}" in maps:
                    output[maps.index(f"offset_{AXES[axis]}")] *= -1
            total = output if total is None else total + output
        assert total is not None
        total /= len(views)
        return total


def _carried_back(
    output: NDArray[np.float32], maps: Sequence[str], order: tuple[int, ...]
) -> NDArray[np.float32]:
    """A copy on the volume's own axes; ``order`` names the volume's axes as they were given."""
    moved = output.transpose(0, *(1 + order.index(axis) for axis in range(3)))
    back = np.array(moved, dtype=np.float32, order="C")
    for place, axis in enumerate(order):
        given, own = f"offset_{AXES[place]}", f"offset_{AXES[axis]}"
        if given in maps and own in maps:
            back[maps.index(own)] = moved[maps.index(given)]
    return back


@dataclass(frozen=True)
class MonteCarlo:
    """The mean of several predictions with dropout left on.

    Only dropout layers are switched to training; normalization stays as in evaluation. Give
    ``seed`` to ``sliding_window_inference`` too: it then sets torch's random numbers before each
    window, so results are the same twice and no window depends on the others.

    Attributes:
        passes: predictions that are averaged.
        seed: of the dropout.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 1, 1), nn.Dropout(0.5)).eval()
        >>> mean = MonteCarlo(passes=20).around(network, network)
        >>> mean(torch.zeros(1, 1, 4, 4, 4)).shape
        torch.Size([1, 1, 4, 4, 4])
    """

    passes: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ValueError(f"passes must be 1 or more, not {self.passes}")

    def around(self, network: nn.Module, apply: Apply) -> Apply:
        """``apply`` repeated and averaged, with the dropout layers of ``network`` switched on.

        With mirroring this mean is taken first, of each mirror image, and then that of the mirror
        images. The sum is float32, in the order of the passes. Dropout layers are as before after
        each call.

        Raises:
            ValueError: If the network has no dropout layer.
        """
        if not _dropout_layers(network):
            raise ValueError(f"{type(network).__name__} has no dropout layer")

        def mean(patches: torch.Tensor) -> torch.Tensor:
            with dropout_on(network):
                total = apply(patches).float()
                for _ in range(self.passes - 1):
                    total = total + apply(patches).float()
            return total / self.passes

        return mean


@contextmanager
def dropout_on(network: nn.Module) -> Iterator[None]:
    """Dropout layers drop inside the block, whatever the network's mode; then all is as before.

    Dropout called as a function (``torch.nn.functional.dropout``) follows its own module.

    Example:
        >>> network = nn.Sequential(nn.Dropout(0.5)).eval()
        >>> with dropout_on(network):
        ...     has_dropout_on(network)
        ...
        True
        >>> has_dropout_on(network)
        False
    """
    layers = _dropout_layers(network)
    before = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.train(training)


def has_dropout_on(network: nn.Module) -> bool:
    """True where a dropout layer drops: predictions of the network are random.

    Example:
        >>> has_dropout_on(nn.Dropout(0.5).train()), has_dropout_on(nn.Dropout(0.5).eval())
        (True, False)
    """
    return any(layer.training and layer.p > 0 for layer in _dropout_layers(network))


def _dropout_layers(network: nn.Module) -> list[_DropoutNd]:
    return [module for module in network.modules() if isinstance(module, _DropoutNd)]
