"""What the tests of this folder share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Stored = tuple[dict[str, np.ndarray], dict[str, Any]]


@pytest.fixture(scope="session")
def partition() -> Callable[[np.ndarray], np.ndarray]:
    """Labels numbered in C order of their first voxels: equal partitions become equal arrays."""

    def numbered(labels: np.ndarray) -> np.ndarray:
        _, first, inverse = np.unique(labels.reshape(-1), return_index=True, return_inverse=True)
        background = labels.reshape(-1)[first] == 0
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(np.where(background, -1, first))] = np.arange(len(first))
        if not background.any():
            rank += 1
        return rank[inverse].reshape(labels.shape)

    return numbered


@pytest.fixture(scope="session")
def vectors(shared: Callable[[str], Path]) -> Callable[[str], Iterator[Stored]]:
    """Stored arrays and facts of every reference vector whose name begins as given."""

    def read(prefix: str) -> Iterator[Stored]:
        paths = sorted(shared("oracle/postprocessing").glob(f"{prefix}*.npz"))
        assert paths, prefix
        for path in paths:
            yield dict(np.load(path)), json.loads(path.with_suffix(".json").read_text())

    return read
