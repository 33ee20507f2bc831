"""Batches of nnU-Net's loaders that depend on the seed and their number alone. Imports torch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Python's, NumPy's and torch's global generators start from ``entropy`` in the block.

    After it they go on as if there had been no block.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    set_seed(*entropy)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def set_seed(*entropy: int) -> None:
    """Start Python's, NumPy's and torch's global generators, from which nnU-Net draws."""
    draw = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(draw[0]))
    np.random.seed(int(draw[1]))  # noqa: NPY002
    torch.manual_seed(int(draw[2]))


class SeededBatches(Dataset[Any]):
    """Batch n of a loader that draws at random: the same for the same seed and n.

    Args:
        loader: gives a batch for each ``next``, as nnU-Net's does.
        seed: of the run, and of what tells this loader from the run's others.
    """

    def __init__(self, loader: Iterator[Any], *seed: int) -> None:
        self.loader = loader
        self.seed = seed

    def __getitem__(self, number: int) -> Any:
        with seeded(*self.seed, number):
            return next(self.loader)


def batches(data: SeededBatches, first: int, workers: int, *, pin_memory: bool) -> Iterator[Any]:
    """Batches ``first``, ``first`` + 1 … in order, without end.

    Args:
        workers: processes that prepare them; 0 prepares them in this one. The batches are the
            same.
    """
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=None,
        sampler=itertools.count(first),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
    )
    return iter(loader)


def _as_it_is(batch: Any) -> Any:
    return batch
