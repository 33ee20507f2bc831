"""A head small enough to plant many lesions in quickly, and one real simulated patient."""

import numpy as np
import pytest

from lesionwise.simulate.anatomy import Anatomy
from lesionwise.simulate.patient import Patient, simulate_patient

SIDE = 72


@pytest.fixture(scope="session")
def toy() -> Anatomy:
    """A block of white matter around a slit-shaped ventricle, with cortex as its shell."""
    shape = (SIDE, SIDE, SIDE)
    i, j, k = np.meshgrid(*[np.arange(SIDE) - SIDE // 2] * 3, indexing="ij")
    edge = SIDE // 2 - np.maximum(np.maximum(abs(i), abs(j)), abs(k))
    wall = (np.maximum(abs(i) / 3, np.maximum(abs(j), abs(k)) / 15) - 1) * 3
    brain = edge > 2
    cortex = brain & (edge <= 5)
    inside = wall < 0
    white = (brain & ~cortex & ~inside).astype(np.float32)
    zero = np.zeros(shape, dtype=np.float32)
    return Anatomy(
        white=white,
        gray=cortex.astype(np.float32),
        fluid=inside.astype(np.float32),
        ventricles=inside.astype(np.float32),
        deep_gray=zero,
        brain=brain,
        infratentorial=brain & (k < -24),
        ventricle_mm=wall.astype(np.float32),
        cortex_mm=np.maximum(edge - 5, 0).astype(np.float32),
        shells=np.zeros(shape, dtype=np.uint8),
        template_mm=np.stack([i, j, k]).astype(np.float32)
        + np.float32([[[[10]]], [[[0]]], [[[0]]]]),
    )


@pytest.fixture(scope="session")
def patient() -> Patient:
    """Two visits, 2 mm voxels in plane and 4 mm slices, unregistered."""
    return simulate_patient(5, 2, spacing_mm=(2.0, 2.0, 4.0))
