"""A network applied to a whole volume, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.types import BoolArray

Shape = tuple[int, int, int]
Box = tuple[slice, ...]
Apply = Callable[[torch.Tensor], torch.Tensor]
"""From patches (B, C, I, J, K) to maps (B, M, I, J, K), activations included."""


@dataclass(frozen=True)
class SlidingWindow:
    """How a volume is covered.

    Attributes:
        overlap: share of a window that its neighbor covers too, along each axis.
        mirror_axes: axes to mirror for test-time averaging: every combination of them is
            applied, mirrored back and averaged. Empty: none.
        windows_per_batch: computed together.
        precision: "float32", or "bfloat16" where the processor computes it natively and
            float32 elsewhere.
        engine: what computes the network on a processor: "torch", or "openvino" where that is
            installed and torch elsewhere; None is "torch". A GPU always takes torch.
    """

    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    windows_per_batch: int = 1
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    engine: Literal["torch", "openvino"] | None = None


def gaussian_weights(size: Shape) -> NDArray[np.float32]:
    """Weight of each voxel of a window: a Gaussian of σ = size / 8 around its middle.

    Scaled to a peak of 1 and kept above 1e-3, so that a voxel seen by one window's corner
    alone is still divided by something.
    """
    profiles = []
    for n in size:
        away = np.arange(n) - (n - 1) / 2
        profiles.append(np.exp(-(away**2) / (2 * (n / 8) ** 2)))
    i, j, k = profiles
    weights: NDArray[np.float64] = i[:, None, None] * j[None, :, None] * k[None, None, :]
    clipped: NDArray[np.float64] = np.maximum(weights / weights.max(), 1e-3)
    return clipped.astype(np.float32)


def window_starts(length: int, size: int, overlap: float) -> list[int]:
    """First voxels of windows that cover ``length``: evenly spread, at most the step apart.

    The last window ends with the volume. A volume shorter than a window has one, at 0.
    """
    if length <= size:
        return [0]
    step = max(1, int(size * (1 - overlap)))
    count = -(-(length - size) // step) + 1
    return [round(n * (length - size) / (count - 1)) for n in range(count)]


@torch.inference_mode()
def slide(
    apply: Apply,
    images: Sequence[NDArray[np.floating]],
    brain: BoolArray | None,
    size: Shape,
    maps: tuple[str, ...],
    window: SlidingWindow,
    device: torch.device,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Maps of a whole volume as the weighted mean over all windows that saw each voxel.

    Windows without a brain voxel are not computed; what no window saw is 0. Sums are kept in
    float32.

    Args:
        apply: the network with its activations, on ``device``.
        images: C arrays (I, J, K) of any size.
        brain: (I, J, K); None counts everything as brain.
        size: of a window.
        maps: names of the maps; ``offset_i`` and so on change sign when mirrored.
        window: overlap, mirroring, precision.
        device: to compute on.
        told: called with the number of windows done and their total.

    Returns:
        (len(maps), I, J, K) float32.
    """
    shape = images[0].shape
    padded = [max(n, s) for n, s in zip(shape, size, strict=True)]
    volume = torch.zeros((len(images), *padded), dtype=torch.float32)
    inside: Box = tuple(slice(0, n) for n in shape)
    for channel, image in enumerate(images):
        volume[channel][inside] = torch.from_numpy(np.asarray(image, dtype=np.float32))
    weights = torch.from_numpy(gaussian_weights(size))
    total = torch.zeros((len(maps), *padded), dtype=torch.float32)
    weight = torch.zeros(padded, dtype=torch.float32)
    boxes: list[Box] = [
        tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))
        for start in product(
            *(window_starts(n, s, window.overlap) for n, s in zip(padded, size, strict=True))
        )
    ]
    if brain is not None:
        boxes = [box for box in boxes if brain[box].any()]
    low = window.precision == "bfloat16" and computes_bfloat16(device)
    done = 0
    for batch in _batches(boxes, window.windows_per_batch):
        patches = torch.stack([volume[(slice(None), *box)] for box in batch]).to(device)
        if low:
            patches = patches.to(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            seen = mirrored_mean(apply, patches, maps, window.mirror_axes).float().cpu()
        for box, part in zip(batch, seen, strict=True):
            total[(slice(None), *box)] += part * weights
            weight[box] += weights
        done += len(batch)
        told(done, len(boxes))
    total /= weight.clamp(min=1e-12)
    return total[(slice(None), *inside)].numpy()


def mirrored_mean(
    apply: Apply, patches: torch.Tensor, maps: tuple[str, ...], axes: tuple[int, ...]
) -> torch.Tensor:
    """The mean over every mirrored view, mirrored back.

    An offset that points to the right in a mirrored view points to the left: the component
    along each mirrored axis changes sign.
    """
    total: torch.Tensor | None = None
    views = list(product(*((False, True) for _ in axes)))
    for chosen in views:
        flipped = [axis for axis, flip in zip(axes, chosen, strict=True) if flip]
        dims = [axis + 2 for axis in flipped]
        seen = apply(patches.flip(dims) if dims else patches).float()
        if dims:
            seen = seen.flip(dims)
            for axis in flipped:
                name = f"offset_{'ijk'[axis]}"
                if name in maps:
                    seen[:, maps.index(name)] *= -1
        total = seen if total is None else total + seen
    assert total is not None
    return total / len(views)


def computes_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 is native, so that it saves time."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def _batches(boxes: list[Box], size: int) -> Iterator[list[Box]]:
    for first in range(0, len(boxes), size):
        yield boxes[first : first + size]
