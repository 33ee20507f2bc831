"""SynthStrip: a brain mask by a network whose weights the user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lesionwise.instances.table import bounding_box
from lesionwise.preprocess.brain import largest_filled, mask_where_missing
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.types import Grid, InputError, Study, Volume

MIN_SIDE, MAX_SIDE, MULTIPLE = 192, 320, 64


@dataclass(frozen=True)
class SynthStripBrain:
    """Every visit with a brain mask by SynthStrip; one that has a mask keeps it.

    The weights are not shipped and not downloaded: name the file that comes with FreeSurfer
    (``synthstrip.1.pt``). The scan is brought to 1 mm, cut or padded to sides of 192 to 320
    voxels that are whole multiples of 64, and scaled so that its 99th percentile is 1.

    Attributes:
        weights: path of the file.
        border_mm: the mask holds what the network puts so far outside the brain's surface or
            nearer.

    Raises InputError for a file that is missing or holds other weights.

    An alternative to HD-BET in B0, B6 and B25 and to ROBEX in B29. Source: Hoopes et al. 2022;
    departures: the scan is resampled linearly, not by nearest neighbor, and the distances are
    read linearly on the scan's grid.
    """

    weights: str
    border_mm: float = 1.0

    def __call__(self, study: Study) -> Study:
        if all(visit.brain is not None for visit in study.visits):
            return study
        network = read_network(Path(self.weights))

        def find(scan: Volume, name: str) -> Volume:
            if not np.ptp(scan.array) > 0:
                raise InputError(f"{name}: every voxel has the same value")
            return strip(scan, network, self.border_mm)

        # the network takes all threads and gigabytes for one scan
        return mask_where_missing(study, find, threads=1)


class Convolution(nn.Module):
    """A 3 x 3 x 3 convolution, and a leaky rectifier unless it is the last."""

    def __init__(self, inputs: int, outputs: int, last: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x if self.last else nn.functional.leaky_relu(x, 0.2)


class SynthStripNetwork(nn.Module):
    """(1, 1, I, J, K) scan in [0, 1] to signed distance from the brain's surface, mm.

    Six levels of two convolutions down, six up, and three at full size; sides must be whole
    multiples of 64. The names of the parameters are those of the published file.

    Args:
        widths: feature maps of the levels down; those up have the same in reverse, one level
            later, so that the first width is used at full size alone.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 64, 64, 64)) -> None:
        super().__init__()
        down, now = [], 1
        for width in widths:
            down.append(nn.ModuleList([Convolution(now, width), Convolution(width, width)]))
            now = width
        up = []
        for width, skipped in zip((widths[-1], *widths[:0:-1]), widths[::-1], strict=True):
            up.append(nn.ModuleList([Convolution(now, width), Convolution(width, width)]))
            now = width + skipped
        first = widths[0]
        self.encoder = nn.ModuleList(down)
        self.decoder = nn.ModuleList(up)
        self.remaining = nn.ModuleList(
            [Convolution(now, first), Convolution(first, first), Convolution(first, 1, last=True)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        passed = []
        for level in self.encoder:
            for convolution in level:  # type: ignore[attr-defined]
                x = convolution(x)
            passed.append(x)
            x = nn.functional.max_pool3d(x, 2)
        for level in self.decoder:
            for convolution in level:  # type: ignore[attr-defined]
                x = convolution(x)
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = torch.cat([x, passed.pop()], dim=1)
        for convolution in self.remaining:
            x = convolution(x)
        return x


def read_network(path: Path) -> SynthStripNetwork:
    """The network with the weights of the file.

    Raises:
        InputError: If the file is missing, is no file of weights, or holds another network's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file (the SynthStrip weights)")
    network = SynthStripNetwork()
    try:
        # weights_only: a file of weights must not run code
        read = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(read["model_state_dict"])
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(f"{path}: not SynthStrip weights ({first_line})") from error
    return network.eval()


def strip(scan: Volume, network: nn.Module, border_mm: float) -> Volume:
    """The brain mask on the scan's grid: bool, the largest connected region, filled."""
    grid = respaced(scan.grid, 1.0)
    conformed = resample_to(scan, grid, order=1)
    box, start = _framed(conformed.array)
    low, high = float(box.min()), float(np.percentile(box, 99))
    box = np.clip((box - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    # the network was trained on axes that run to the left, downward and to the front
    turned = np.ascontiguousarray(box[::-1, :, ::-1].transpose(0, 2, 1))
    with torch.inference_mode():
        distance = network(torch.from_numpy(turned)[None, None])[0, 0].numpy()
    distance = np.ascontiguousarray(distance.transpose(0, 2, 1)[::-1, :, ::-1])
    shift = np.eye(4)
    shift[:3, 3] = start
    found = Volume(distance, Grid(distance.shape, grid.affine @ shift))
    back = resample_to(found, scan.grid, order=1, fill=100.0, antialias=False)
    return Volume(largest_filled(back.array < border_mm), scan.grid)


def _framed(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The box of what is not zero, cut or padded about its middle to sides the network takes.

    Returns:
        The box, and the index in ``array`` of its first voxel (negative where it was padded).
    """
    used = bounding_box(array) or tuple(slice(0, n) for n in array.shape)
    low = np.array([part.start for part in used])
    high = np.array([part.stop for part in used])
    sides = np.ceil((high - low) / MULTIPLE).astype(int) * MULTIPLE
    sides = np.clip(sides, MIN_SIDE, MAX_SIDE)
    start = low + (high - low - sides) // 2
    end = start + sides
    padding = [
        (max(0, -int(a)), max(0, int(b) - n))
        for a, b, n in zip(start, end, array.shape, strict=True)
    ]
    cut = array[tuple(slice(max(0, int(a)), int(b)) for a, b in zip(start, end, strict=True))]
    return np.pad(cut, padding), start
