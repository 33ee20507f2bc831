"""Pairs of label maps with the numbers that public peers give on them."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from lesionwise.types import Grid, Instances

CASES = Path(__file__).parents[2] / ".." / "shared" / "oracle" / "cases"


@dataclass(frozen=True)
class PeerCase:
    """One case: both sides, and each peer's JSON."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def reference(self) -> Instances:
        return self._load("ref_instances.nii.gz")

    @cached_property
    def prediction(self) -> Instances:
        return self._load("pred_instances.nii.gz")

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        i, j, k = nib.load(self.folder / "ref_instances.nii.gz").header.get_zooms()[:3]
        return float(i), float(j), float(k)

    @property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        return self.reference.labels > 0, self.prediction.labels > 0

    def peer(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / f"{name}.json").read_text()))

    def _load(self, name: str) -> Instances:
        image = nib.load(self.folder / name)
        labels = np.asanyarray(image.dataobj).astype(np.int32)
        return Instances(labels, Grid(labels.shape, image.affine))


@cache
def _case(folder: Path) -> PeerCase:
    return PeerCase(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        names = sorted(p.name for p in CASES.iterdir()) if CASES.exists() else ["none at hand"]
        metafunc.parametrize("case_name", names)


@pytest.fixture
def peer_case(case_name: str, shared: Callable[[str], Path]) -> PeerCase:
    return _case(shared("oracle/cases") / case_name)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and value.startswith("error"):
        return None
    return None if value is None else float(value)  # "inf" becomes infinite


@pytest.fixture
def agree() -> Callable[[Any, Any, float], bool]:
    """Whether our value is a peer's, to a relative tolerance (absolute below 1).

    What is undefined for us is NaN, infinite or an error for the peer.
    """

    def agree(ours: Any, theirs: Any, tolerance: float) -> bool:
        expected = _number(theirs)
        if expected is None or not math.isfinite(expected):
            return not isinstance(ours, int | float)
        return isinstance(ours, int | float) and (
            abs(ours - expected) <= tolerance * max(1.0, abs(expected))
        )

    return agree
