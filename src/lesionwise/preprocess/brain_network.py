"""The network that finds the brain: what it sees of a head, and its answer on the scan's grid."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.inference.devices import supports_bfloat16
from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.inference.weights import read_weights
from lesionwise.io.cache import cache_folder
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.visits import cached_loader
from lesionwise.types import Grid, Volume

WORKING_MM = 2.5
FEATURES = (8, 16, 32, 64, 64)
"""Channels of the U-Net per level."""
MULTIPLE = 16
"""Sides of its input are multiples of this."""
WEIGHTS = "brain.safetensors"
LARGEST_MM = 480.0
"""A field of view is cut to this extent, about its middle: no head is longer."""
Floats = NDArray[np.float32]
Network = Callable[[Floats], Floats]
"""Logits of the brain, (I, J, K) float32, for a head on the working grid, (I, J, K) float32."""


def brain_probability(scan: Volume, network: Network) -> Volume:
    """Probability of every voxel to be brain: float32, on the scan's grid.

    The network sees the whole field of view on voxels of 2.5 mm along the axes of the world, so
    neither thickness nor direction of the slices matters; its probability is interpolated
    linearly to the scan's voxels.

    Example:
        >>> array = np.zeros((40, 40, 40), dtype=np.float32)
        >>> array[8:32, 8:32, 8:32] = 100
        >>> scan = Volume(array, Grid(array.shape, np.diag([3.0, 3.0, 3.0, 1.0])))
        >>> probability = brain_probability(scan, lambda head: np.where(head > 0.25, 9.0, -9.0))
        >>> bool(probability.array[20, 20, 20] > 0.99), bool(probability.array[0, 0, 0] < 0.01)
        (True, True)
    """
    head = working_head(scan)
    logits = np.clip(network(head.array), -30, 30)
    probability = Volume((1 / (1 + np.exp(-logits))).astype(np.float32), head.grid)
    return resample_to(probability, scan.grid, order=1, antialias=False)


def brain_unet() -> UNet:
    """The network without its weights: one scan in, one logit out.

    Example:
        >>> brain_unet().eval()(torch.zeros(1, 1, 32, 32, 32)).shape
        torch.Size([1, 1, 32, 32, 32])
    """
    return UNet(1, 1, FEATURES, "instance", widening="first")


@cached_loader
def shipped_network() -> Network:
    """The network whose weights come with the package, read once.

    Raises:
        InputError: If the file is missing or damaged.

    Example:
        >>> logits = shipped_network()(np.zeros((32, 32, 32), dtype=np.float32))
        >>> logits.shape, str(logits.dtype)
        ((32, 32, 32), 'float32')
    """
    return read_network(_shipped())


def has_shipped_network() -> bool:
    """True where weights come with the package.

    Example:
        >>> has_shipped_network()
        True
    """
    return _shipped().is_file()


def _shipped() -> Path:
    return Path(str(importlib.resources.files("lesionwise") / "models" / WEIGHTS))


def read_network(weights: Path) -> Network:
    """A network from its weights, for the CPU.

    In bfloat16 where the processor has it, by OpenVINO where that is installed and bfloat16 is
    not, else in float32: a head takes about a second in any of them.

    Raises:
        InputError: If the file is missing, or holds weights of another network.

    Example:
        >>> from lesionwise.inference.weights import save_weights
        >>> save_weights(brain_unet(), "brain.safetensors")
        >>> network = read_network(Path("brain.safetensors"))
        >>> network(np.zeros((32, 32, 32), dtype=np.float32)).shape
        (32, 32, 32)
    """
    unet = brain_unet()
    read_weights(unet, weights)
    unet.eval()
    use_bf16 = supports_bfloat16(torch.device("cpu"))
    compute: Any = unet
    if not use_bf16 and has_openvino():
        compute = OpenVinoNetwork(unet, use_bf16=False, kept_in=cache_folder())

    def network(head: Floats) -> Floats:
        given = torch.from_numpy(np.ascontiguousarray(head, dtype=np.float32))[None, None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
            logits: Floats = compute(given)[0, 0].float().numpy()
        return logits

    return network


def working_head(scan: Volume) -> Volume:
    """The head as the network sees it: `normalized`, its sides padded to multiples of 16.

    Example:
        >>> grid = Grid((40, 40, 2), np.diag([3.0, 3.0, 50.0, 1.0]))
        >>> head = working_head(Volume(np.arange(3200.0).reshape(grid.shape), grid))
        >>> head.array.shape, head.grid.spacing_mm
        ((48, 48, 48), (2.5, 2.5, 2.5))
    """
    background = float(np.percentile(scan.array, 1))
    finer = [max(2.0, s) for s in scan.grid.spacing_mm]
    coarse = resample_to(scan, respaced(scan.grid, finer), order=1)
    grid = world_grid(scan.grid, WORKING_MM, MULTIPLE, LARGEST_MM, smallest=2)
    return Volume(normalized(resample_to(coarse, grid, order=1, fill=background).array), grid)


def normalized(head: NDArray[np.floating]) -> Floats:
    """Intensities between 0 and 2: 0 is the air (1st percentile), 1 twice the head's mean.

    The head is what is brighter than the mean of all voxels. A constant array gives 0.

    Example:
        >>> normalized(np.array([0.0, 0.0, 0.0, 10.0, 10.0])).tolist()
        [0.0, 0.0, 0.0, 0.5, 0.5]
    """
    above = np.asarray(head, dtype=np.float32) - np.float32(np.percentile(head, 1))
    bright = above[above > above.mean()]
    scale = 2 * float(bright.mean()) if bright.size else 1.0
    return np.clip(above / np.float32(scale), 0, 2)


def world_grid(
    scan: Grid,
    spacing_mm: float,
    multiple: int = 1,
    largest_mm: float = 1e6,
    smallest: int = 1,
) -> Grid:
    """Isotropic voxels along the axes of the world that cover a scan, centered on it.

    Args:
        multiple: of voxels along each side.
        largest_mm: longest side; a larger scan is covered in its middle alone.
        smallest: shortest side, in multiples: instance normalization needs more than one voxel
            where the network is coarsest.

    Example:
        >>> world_grid(Grid((10, 10, 4), np.diag([1.0, 1.0, 5.0, 1.0])), 2.5).shape
        (4, 4, 8)
    """
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in scan.shape])).reshape(3, -1).T
    places = scan.world_mm(corners)
    low, high = places.min(axis=0), places.max(axis=0)
    extent = np.minimum(high - low, largest_mm)
    shape = (
        np.maximum(np.ceil(extent / spacing_mm / multiple - 1e-6), smallest).astype(int) * multiple
    )
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = (low + high) / 2 - spacing_mm * (shape - 1) / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
