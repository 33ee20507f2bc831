"""A network applied to a whole volume, window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.inference.devices import supports_bfloat16
from lesionwise.inference.views import Apply, mirrored_mean
from lesionwise.types import BoolArray, FloatArray, InputError

T = TypeVar("T")
U = TypeVar("U")
Shape: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[slice, ...]
NO_CONDITIONS: Mapping[str, torch.Tensor] = MappingProxyType({})
UNSEEN_LOGIT = -16.0
"""A probability of 1e-7, where no window looked."""


@dataclass(frozen=True)
class SlidingWindow:
    """How a volume is covered.

    Attributes:
        overlap: share of a window's output that its neighbor covers too, along each axis.
        mirror_axes: axes to mirror for test-time averaging: every combination of them is
            applied, mirrored back and averaged. Empty: none.
        windows_per_batch: computed together.
        at_once: batches computed at one time, each in its share of the cores, where OpenVINO
            computes them; else one after the other. Memory grows with it.
        precision: "float32", or "bfloat16" where the processor computes it natively and
            float32 elsewhere.
        engine: what computes the network on a CPU: "torch", or "openvino" where that is
            installed and torch elsewhere. A GPU always takes torch.
        weighting: of the windows that saw a voxel: "gaussian" trusts a window's middle more than
            its border, "nnunet" too, with the very Gaussian of nnU-Net, "uniform" all its voxels
            alike.
        stride_vox: a fixed step along i, j, k instead of ``overlap``; the last window of an axis
            ends with what is covered.
        cover: "volume", or "brain" for the box around the brain mask alone, which takes fewer
            windows. Without a mask it is the volume.
        fit: make windows as short as their number along each axis allows, in multiples of this
            and not below half their length; the network has to take such sides. None leaves them
            as they are.
    """

    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    windows_per_batch: int = 1
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    engine: Literal["torch", "openvino"] = "torch"
    weighting: Literal["gaussian", "nnunet", "uniform"] = "gaussian"
    stride_vox: Shape | None = None
    cover: Literal["volume", "brain"] = "volume"
    fit: int | None = None
    at_once: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be at least 0 and less than 1, not {self.overlap:g}")
        if self.windows_per_batch < 1:
            raise ValueError(f"windows_per_batch must be 1 or more, not {self.windows_per_batch}")
        if self.at_once < 1:
            raise ValueError(f"at_once must be 1 or more, not {self.at_once}")
        if self.stride_vox is not None and min(self.stride_vox) < 1:
            raise ValueError(f"stride_vox must be 1 or more along each axis, not {self.stride_vox}")
        if self.fit is not None and (self.fit < 1 or self.stride_vox is not None):
            raise ValueError("fit must be 1 or more, and does not go with a fixed stride_vox")


def call_network(
    network: Callable[..., Any],
    image: torch.Tensor,
    conditions: Mapping[str, torch.Tensor] = NO_CONDITIONS,
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """What a network returns for patches and the conditions that it names.

    A network with ``conditions = ("spacing_mm",)`` is called as
    ``network(image, spacing_mm=values)``, one without as ``network(image)``.

    Args:
        network: in training or in prediction.
        image: (B, C, I, J, K).
        conditions: by name, each (B, n), or (n,) for all patches alike; those that the network
            does not name are left out.

    Raises:
        InputError: If the network names a condition that is not given.

    Example:
        >>> def network(image, spacing_mm):
        ...     return image * spacing_mm[:, 2]
        ...
        >>> network.conditions = ("spacing_mm",)
        >>> spacing_mm = torch.tensor([1.0, 1.0, 3.0])
        >>> call_network(network, torch.ones(1, 1, 1, 1, 1), {"spacing_mm": spacing_mm}).item()
        3.0
    """
    named = tuple(getattr(network, "conditions", ()))
    missing = [name for name in named if name not in conditions]
    if missing:
        raise InputError(f"the network needs {', '.join(missing)} of each sample")
    values = {}
    for name in named:
        value = conditions[name].to(image.device, torch.float32)
        values[name] = value if value.ndim > 1 else value.expand(len(image), -1)
    return network(image, **values)  # type: ignore[no-any-return]


def gaussian_weights(size: Shape) -> NDArray[np.float32]:
    """Weight of each voxel of a window: a Gaussian of σ = size / 8 around its middle.

    Scaled to a peak of 1 and kept above 1e-3, so that a voxel seen by one window's corner
    alone is still divided by something.

    Example:
        >>> weights = gaussian_weights((9, 9, 9))
        >>> weights.shape, float(weights[4, 4, 4]), round(float(weights[0, 0, 0]), 3)
        ((9, 9, 9), 1.0, 0.001)
    """
    profiles = []
    for n in size:
        distance = np.arange(n) - (n - 1) / 2
        profiles.append(np.exp(-(distance**2) / (2 * (n / 8) ** 2)))
    i, j, k = profiles
    weights: NDArray[np.float64] = i[:, None, None] * j[None, :, None] * k[None, None, :]
    clipped: NDArray[np.float64] = np.maximum(weights / weights.max(), 1e-3)
    return clipped.astype(np.float32)


def _nnunet_weights(size: Shape) -> NDArray[np.float32]:
    """Weight of each voxel of a window as in nnU-Net: a Gaussian of σ = size / 8 around voxel
    size // 2, with a peak of 1 and no least weight."""
    i, j, k = (
        np.exp(-((np.arange(n) - n // 2) ** 2) / (2 * (n / 8) ** 2)) if n > 1 else np.ones(1)
        for n in size
    )
    weights: NDArray[np.float64] = i[:, None, None] * j[None, :, None] * k[None, None, :]
    return weights.astype(np.float32)


def window_starts(length: int, size: int, overlap: float, stride: int | None = None) -> list[int]:
    """First voxels of windows that cover ``length``.

    With an overlap they are evenly spread, at most ``size * (1 - overlap)`` apart, rounded down.
    With a stride they are that far apart; the last step may be shorter. The last window ends with
    the volume. A volume shorter than a window has one, at 0.

    Raises:
        InputError: If the stride is below 1 or leaves gaps.

    Example:
        >>> window_starts(10, 4, overlap=0.5)
        [0, 2, 4, 6]
        >>> window_starts(10, 4, overlap=0.5, stride=4)
        [0, 4, 6]
    """
    if stride is not None and not 1 <= stride <= size:
        raise InputError(f"a stride of {stride} voxels does not fit windows of {size}")
    if length <= size:
        return [0]
    last = length - size
    if stride is not None:
        return [*range(0, last, stride), last]
    step = max(1, int(size * (1 - overlap)))
    count = -(-last // step) + 1
    return [round(n * last / (count - 1)) for n in range(count)]


@dataclass(frozen=True)
class _Tiling:
    """Where windows lie.

    Attributes:
        size: of what the network takes.
        output: of what it returns, in the middle of what it takes.
        shape: of what outputs cover: the volume, or one output where it is shorter than that.
        before: voxels of it before the volume, which lies in the middle of a longer output.
        starts: first voxels of outputs in it. What the network sees begins ``margin`` voxels
            earlier, so inputs start at the same numbers there.
    """

    size: Shape
    output: Shape
    shape: Shape
    before: Shape
    starts: list[Shape]

    @property
    def margin(self) -> Shape:
        i, j, k = ((n - m) // 2 for n, m in zip(self.size, self.output, strict=True))
        return i, j, k

    def volume(self, shape: Sequence[int]) -> Box:
        """Where a volume of this shape lies in what outputs cover."""
        return _box(self.before, shape)


def _tiling(
    shape: Sequence[int],
    size: Shape,
    output: Sequence[int],
    window: SlidingWindow,
    brain: BoolArray | None,
) -> _Tiling:
    """Windows that cover the volume, without those whose output holds no brain voxel."""
    if any(not 1 <= m <= n or (n - m) % 2 for n, m in zip(size, output, strict=True)):
        raise InputError(
            f"the network returns {_times(output)} voxels for {_times(size)}: the margin must be "
            "the same on both sides"
        )
    i, j, k = (max(n, m) for n, m in zip(shape, output, strict=True))
    before_i, before_j, before_k = (  # rounded as where a patch begins in training
        max(0, -((n - m) // 2)) for n, m in zip(shape, output, strict=True)
    )
    before = (before_i, before_j, before_k)
    if brain is not None and any(before):
        after = (p - n - b for p, n, b in zip((i, j, k), shape, before, strict=True))
        brain = np.pad(brain, tuple(zip(before, after, strict=True)))
    ranges = _covered((i, j, k), window, brain)
    strides = window.stride_vox or (None, None, None)
    a, b, c = (
        _starts_within(each, n, m, window.overlap, stride)
        for each, n, m, stride in zip(ranges, (i, j, k), output, strides, strict=True)
    )
    starts = list(product(a, b, c))
    if brain is not None:
        starts = [start for start in starts if brain[_box(start, output)].any()]
    x, y, z = output
    return _Tiling(size, (x, y, z), (i, j, k), before, starts)


def _covered(shape: Shape, window: SlidingWindow, brain: BoolArray | None) -> list[tuple[int, int]]:
    """First and last voxel + 1 along each axis of what windows cover."""
    if window.cover == "brain" and brain is not None and brain.any():
        return _ranges(brain)
    return [(0, n) for n in shape]


def _fitted(size: Shape, ranges: Sequence[tuple[int, int]], window: SlidingWindow) -> Shape:
    """Windows as short as their number along each axis allows (``SlidingWindow.fit``)."""
    multiple = window.fit
    if multiple is None:
        return size

    def shortest(length: int, longest: int) -> int:
        count = len(window_starts(length, longest, window.overlap))
        half = -(-longest // (2 * multiple)) * multiple
        for shorter in range(half, longest, multiple):
            if len(window_starts(length, shorter, window.overlap)) <= count:
                return shorter
        return longest

    i, j, k = (
        shortest(last - first, longest) for (first, last), longest in zip(ranges, size, strict=True)
    )
    return i, j, k


def _ranges(mask: BoolArray) -> list[tuple[int, int]]:
    """First and last voxel + 1 of a mask that is not empty, along each axis."""
    ranges = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        where = np.flatnonzero(mask.any(axis=others))
        ranges.append((int(where[0]), int(where[-1]) + 1))
    return ranges


def _starts_within(
    covered: tuple[int, int], length: int, size: int, overlap: float, stride: int | None
) -> list[int]:
    """Window starts that cover a range; a window longer than it lies around its middle."""
    first, last = covered
    if last - first < size:
        return [min(max(0, first - (size - last + first) // 2), length - size)]
    return [first + start for start in window_starts(last - first, size, overlap, stride)]


@torch.inference_mode()
def sliding_window_inference(
    apply: Apply,
    images: Sequence[FloatArray],
    brain: BoolArray | None,
    size: Shape,
    maps: Sequence[str],
    window: SlidingWindow,
    device: torch.device,
    *,
    seed: int | None = None,
    at_once: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Maps of a whole volume as the weighted mean over all windows that saw each voxel.

    The network may return less than it takes, the middle of it (convolutions without padding;
    three slices in, one out): its output decides how windows lie. They cover the volume up to its
    border, where the network sees zeros outside, or the box of the brain (``window.cover``). A
    volume shorter than a window lies in its middle, as a patch does in training.
    Windows whose output holds no brain voxel are not computed; what no window saw is 0, a
    ``logit`` there ``UNSEEN_LOGIT``. Sums are kept in float32.

    Args:
        apply: the network with its activations, on ``device``: from (B, C, I, J, K) to
            (B, len(maps), I', J', K').
        images: C arrays (I, J, K) of any size.
        brain: (I, J, K); None counts everything as brain.
        size: of what the network takes, before ``window.fit``.
        maps: names of the maps; ``offset_i`` and so on change sign when mirrored.
        window: overlap, mirroring, precision.
        device: to compute on.
        seed: for networks with dropout on: windows are computed one at a time, each from random
            numbers of its own that come from the seed and the window's place alone. Torch's random
            state is as before afterwards.
        at_once: batches computed in threads beside each other; for an ``apply`` that allows it.
            They are added up in their order, so the sum is the same. 1 with a ``seed``.
        on_progress: called with the number of windows done and their total.

    Returns:
        (len(maps), I, J, K) float32.

    Raises:
        InputError: If the output is larger than the input, or not in its middle, if the stride
            leaves gaps, or if the network returns another number of maps.

    Example:
        >>> flair, network = np.zeros((9, 10, 11)), torch.nn.Conv3d(1, 1, kernel_size=3, padding=1)
        >>> sliding_window_inference(
        ...     lambda patches: network(patches).sigmoid(), [flair], None, (8, 8, 8),
        ...     ("probability",), SlidingWindow(), torch.device("cpu")).shape
        (1, 9, 10, 11)
    """
    shape = images[0].shape
    use_bf16 = window.precision == "bfloat16" and supports_bfloat16(device)

    @torch.inference_mode()
    def compute(volume: torch.Tensor, starts: Sequence[Shape]) -> torch.Tensor:
        patches = torch.stack([volume[(slice(None), *_box(start, size))] for start in starts])
        patches = patches.to(device)
        if use_bf16:
            patches = patches.to(memory_format=torch.channels_last_3d)
        random = nullcontext() if seed is None else _seeded(device, (seed, *starts[0]))
        with random, torch.autocast(device.type, torch.bfloat16, enabled=use_bf16):
            output = mirrored_mean(apply, patches, maps, window.mirror_axes)
        if output.shape[1] != len(maps):
            raise InputError(f"the network returns {output.shape[1]} maps, not {len(maps)}")
        return output.float().cpu()

    per_batch = window.windows_per_batch if seed is None else 1
    size = _fitted(size, _covered(shape, window, brain), window)

    def computed(tiling: _Tiling) -> Generator[torch.Tensor, None, None]:
        work = partial(compute, _padded(images, tiling))
        return _in_order(
            work, list(_batches(tiling.starts, per_batch)), at_once if seed is None else 1
        )

    tiling = _tiling(shape, size, size, window, brain)
    outputs = computed(tiling)
    first = next(outputs, None)
    if first is not None and tuple(first.shape[2:]) != size:  # this output only showed its size
        outputs.close()
        tiling = _tiling(shape, size, first.shape[2:], window, brain)
        outputs, first = computed(tiling), None
    weights = torch.ones(tiling.output)
    if window.weighting != "uniform":
        made = _nnunet_weights if window.weighting == "nnunet" else gaussian_weights
        weights = torch.from_numpy(made(tiling.output))
    total = torch.zeros((len(maps), *tiling.shape), dtype=torch.float32)
    weight = torch.zeros(tiling.shape, dtype=torch.float32)
    done = 0
    for starts in _batches(tiling.starts, per_batch):
        batch = next(outputs) if first is None else first
        first = None
        for start, output in zip(starts, batch, strict=True):
            box = _box(start, tiling.output)
            total[(slice(None), *box)] += output * weights
            weight[box] += weights
        done += len(starts)
        on_progress(done, len(tiling.starts))
    total /= weight.clamp(min=1e-12)
    if "logit" in maps:
        total[maps.index("logit")].masked_fill_(weight == 0, UNSEEN_LOGIT)
    return total[(slice(None), *tiling.volume(shape))].numpy()


def _in_order(work: Callable[[T], U], jobs: Sequence[T], at_once: int) -> Generator[U, None, None]:
    """What ``map(work, jobs)`` gives, in its order, computed in threads.

    At most ``at_once`` calls have begun whose result has not been taken, so memory is bounded.
    """
    if at_once < 2 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    with ThreadPoolExecutor(at_once) as pool:
        begun: deque[Future[U]] = deque()
        try:
            for job in jobs:
                if len(begun) == at_once:
                    yield begun.popleft().result()
                begun.append(pool.submit(work, job))
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


def _padded(images: Sequence[FloatArray], tiling: _Tiling) -> torch.Tensor:
    """(C, I, J, K) float32 with zeros around the images, as far as windows look."""
    extent = [n + 2 * m for n, m in zip(tiling.shape, tiling.margin, strict=True)]
    volume = torch.zeros((len(images), *extent), dtype=torch.float32)
    first = [m + b for m, b in zip(tiling.margin, tiling.before, strict=True)]
    for channel, image in enumerate(images):
        volume[channel][_box(first, image.shape)] = torch.from_numpy(
            np.ascontiguousarray(image, dtype=np.float32)
        )
    return volume


@contextmanager
def _seeded(device: torch.device, numbers: tuple[int, ...]) -> Iterator[None]:
    """Random numbers of torch that depend on these numbers alone, inside the block."""
    state = np.random.SeedSequence(numbers).generate_state(2)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(state[0]) << 32 | int(state[1]))
        yield


def _box(start: Sequence[int], size: Sequence[int]) -> Box:
    return tuple(slice(first, first + n) for first, n in zip(start, size, strict=True))


def _batches(starts: list[Shape], size: int) -> Iterator[list[Shape]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
