"""Normalization that comes after augmentation, of whole volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Normalizer(Protocol):
    """What is done to each channel of a volume after augmentation, and in prediction."""

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """A changed copy of (I, J, K)."""


@dataclass(frozen=True)
class ClipToRange:
    """Clips intensities to two percentiles of all voxels and maps them onto a range.

    An image whose percentiles coincide becomes the middle of the range.

    Attributes:
        low, high: percentiles, 0 to 100.
        onto: the two ends of the result.
    """

    low: float = 0.05
    high: float = 99.5
    onto: tuple[float, float] = (-1.0, 1.0)

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        low, high = (float(v) for v in np.percentile(image, [self.low, self.high]))
        start, end = self.onto
        if not high > low:
            return np.full(image.shape, (start + end) / 2, dtype=np.float32)
        scaled = (np.clip(image, low, high) - low) * ((end - start) / (high - low)) + start
        return np.asarray(scaled, dtype=np.float32)
