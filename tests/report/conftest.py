"""A small study whose lesions are known, and a browser where one can be had."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lesionwise.report.page import StudyPage, VisitView
from lesionwise.types import Grid, Instances, Volume

SHAPE = (40, 48, 36)
BLOCKS = {
    3: (slice(8, 13), slice(10, 14), slice(10, 13)),
    7: (slice(24, 28), slice(30, 36), slice(20, 24)),
    9: (slice(28, 31), slice(30, 36), slice(20, 24)),
}
"""Lesions of the small study: 7 and 9 touch each other."""


def block_study(subject: str = "blocks", visits: int = 1) -> StudyPage:
    """A bright ellipsoid with block-shaped lesions at 2 mm, one or two visits."""
    grid = Grid(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]) + _shift(-38, -50, -30))
    index = np.indices(SHAPE).reshape(3, -1).T
    center = (np.array(SHAPE) - 1) / 2
    inside = ((((index - center) / (center - 1)) ** 2).sum(axis=1) < 1).reshape(SHAPE)
    noise = np.random.default_rng(1).normal(0, 4, SHAPE)
    image = np.where(inside, 100 + noise, 0).astype(np.float32)
    labels = np.zeros(SHAPE, dtype=np.int32)
    for label, block in BLOCKS.items():
        labels[block] = label
    image[labels > 0] += 80
    views, tables = [], []
    for number in range(visits):
        session = f"M{12 * number:02}"
        instances = Instances(labels, grid)
        joined = np.where(labels == 9, 7, labels).astype(np.int32)
        views.append(
            VisitView(
                session,
                Volume(image, grid),
                {"offsets": instances, "cc": Instances(joined, grid)},
                Volume(inside, grid),
            )
        )
        tables += [_table(labels, session, "offsets"), _table(joined, session, "cc")]
    return StudyPage(
        title=f"Study {subject}",
        subject=subject,
        visits=tuple(views),
        lesions=pd.concat(tables, ignore_index=True),
        provenance={"Recipe": "conflunet", "Departures": ("ties: first kept",)},
    )


def changed_study() -> StudyPage:
    """Two visits of the small study: lesion 3 is new at the second, 7 has grown, 9 is stable."""
    study = block_study(visits=2)
    earlier, later = study.visits
    labels = earlier.instances["offsets"].labels.copy()
    image = earlier.image.array.copy()
    for block in (BLOCKS[3], (slice(24, 26), *BLOCKS[7][1:])):
        labels[block] = 0
        image[block] = 100
    grid = earlier.image.grid
    earlier = replace(
        earlier, image=Volume(image, grid), instances={"offsets": Instances(labels, grid)}
    )
    lesions = study.lesions[study.lesions["method"] == "offsets"].copy()
    lesions = lesions[(lesions["session"] == "M12") | (lesions["label"] != 3)]
    states = {3: "new", 7: "enlarging", 9: "stable"}
    lesions["state"] = [
        states[label] if session == "M12" else "baseline"
        for session, label in zip(lesions["session"], lesions["label"], strict=True)
    ]
    lesions["track"] = lesions["label"]
    changes = pd.DataFrame(
        {
            "state": ["new", "enlarging", "stable"],
            "location": ["periventricular", "juxtacortical", "deep white matter"],
            "baseline": ["", "7", "9"],
            "followup": ["3", "7", "9"],
            "baseline_mm3": [np.nan, 384.0, 576.0],
            "followup_mm3": [480.0, 768.0, 576.0],
            "brighter by (noise)": [12.3, 8.0, np.nan],
            "contrast gained or lost (%)": [97.0, np.nan, np.nan],
            "edge": [False, True, False],
            "note": ["", "", ""],
        }
    )
    return replace(study, visits=(earlier, later), lesions=lesions, changes=changes)


def _table(labels: np.ndarray, session: str, method: str) -> pd.DataFrame:
    found, voxels = np.unique(labels[labels > 0], return_counts=True)
    places = {3: "periventricular", 7: "juxtacortical", 9: "deep white matter"}
    return pd.DataFrame(
        {
            "session": session,
            "method": method,
            "label": found,
            "volume_mm3": voxels * 8.0,
            "location": [places[int(label)] for label in found],
            "confidence": [0.5 + 0.1 * rank for rank in range(len(found))],
            "confluent_group": [
                7 if method == "offsets" and label in (7, 9) else 0 for label in found
            ],
        }
    )


def _shift(x: float, y: float, z: float) -> np.ndarray:
    shift = np.zeros((4, 4))
    shift[:3, 3] = x, y, z
    return shift


@pytest.fixture(scope="session")
def make_study() -> Callable[..., StudyPage]:
    return block_study


@pytest.fixture(scope="session")
def changed() -> StudyPage:
    return changed_study()


@pytest.fixture
def study() -> StudyPage:
    return block_study()


@pytest.fixture(scope="session")
def browser_module() -> ModuleType:
    """``browser.py`` beside this file, which is no package."""
    path = Path(__file__).with_name("browser.py")
    spec = importlib.util.spec_from_file_location("lesionwise_test_browser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def programs(browser_module: ModuleType) -> tuple[str, str]:
    """Chromium and its driver: found, or installed under CI, or the tests are skipped.

    Under CI a system that could install them and did not is a failure.
    """
    found: Any = browser_module.find_browser()
    if found is None and os.environ.get("CI"):
        reason = browser_module.install_browser()
        found = browser_module.find_browser()
        if found is None and "could not" in reason:
            pytest.fail(reason)
    if found is None:
        pytest.skip("no Chromium with ChromeDriver: apt-get install chromium chromium-driver")
    programs: tuple[str, str] = found
    return programs


@pytest.fixture(scope="session")
def browser(programs: tuple[str, str], browser_module: ModuleType) -> Iterator[Any]:
    """One browser for all tests, drawing WebGL2 in software."""
    with browser_module.browse(programs) as browser:
        yield browser
