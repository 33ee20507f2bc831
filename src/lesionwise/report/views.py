"""What a page shows, as the commands hand it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lesionwise.results.quality import QualityNote as QualityNote
from lesionwise.types import EMPTY, Instances, Volume

BRIGHTER = "brighter by (noise)"
CAME = "contrast gained or lost (%)"
"""Columns of the table of changes where the scans were asked."""


@dataclass(frozen=True)
class StageView:
    """A picture of the scan after one preprocessing step.

    Attributes:
        step: as the recipe writes it; ``as read`` for the scan before the first.
        picture: WebP.
        black, white: the values shown so.
        outlined: the brain mask is drawn.
    """

    step: str
    picture: bytes
    black: float
    white: float
    outlined: bool = False


@dataclass(frozen=True, eq=False)
class VisitView:
    """One visit as the page shows it; every map lies on the grid of the image.

    Attributes:
        session: name of the time point; may be empty where there is one visit.
        image: the scan, any orientation and unit.
        instances: lesions by separation method (offsets, acls, cc …).
        brain: brain mask, for cropping and gray levels.
        truth: known lesions, outlined beside the found ones.
        to_common: (4, 4) world mm of this visit to world mm shared by all visits of the page;
            None where they are the same.
        warnings: what the reader should know before believing the result.
        source: name of the scan that was read.
        stages: how it was prepared, step by step.
        mask_ml: volume of the mask, with what the size filters dropped; None where unknown.
        brain_ml: volume of the brain; None takes that of ``brain``.
    """

    session: str
    image: Volume
    instances: Mapping[str, Instances]
    brain: Volume | None = None
    truth: Instances | None = None
    to_common: NDArray[np.float64] | None = None
    warnings: tuple[str, ...] = ()
    source: str = ""
    stages: tuple[StageView, ...] = ()
    mask_ml: float | None = None
    brain_ml: float | None = None


@dataclass(frozen=True, eq=False)
class StudyPage:
    """What the page of one study shows.

    Attributes:
        title: heading.
        subject: name of the patient.
        visits: one, two or more, in time order.
        lesions: rows as in ``lesions.tsv``: label, volume_mm3 and, as far as known, session,
            method, location, state, track (one number for one lesion at all visits),
            confidence, confluent_group, center_x_mm …, extent_i_mm ….
        method: the main way of telling lesions apart; by default the first of the last visit.
        changes: the state of each lesion between the last two visits, one row per lesion: state,
            and as far as known baseline and followup (labels, comma-separated), baseline_mm3,
            followup_mm3. Lesions of the visit before the last take their state from here.
        intervals: how many lesions of each state at each visit after the first, as in
            ``visits.tsv``: before, after, and a column a state.
        scores: metric values against a known truth, a free table.
        quality: how fit the inputs are, a note for each scan and for what changed between visits.
        provenance: what made the page: recipe, model, versions, departures, options.
        warnings: about the study as a whole.
        links: relative paths of related files by the text to show.
    """

    title: str
    subject: str
    visits: tuple[VisitView, ...]
    lesions: pd.DataFrame
    method: str = ""
    changes: pd.DataFrame | None = None
    intervals: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    quality: tuple[QualityNote, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    warnings: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, eq=False)
class CohortPage:
    """What the page of many scans shows.

    Attributes:
        title: heading.
        scans: one row per scan, shown as it is; columns that end in ``_mm3`` or ``_ml`` or hold
            counts are shown as numbers. A column ``page`` holds the relative path of the scan's
            own page.
        failures: one row per scan that failed, with the reason.
        distributions: columns of ``scans`` to draw as histograms.
        groups: a row a group of patients; None where there are none.
        provenance, warnings: as for a study.
    """

    title: str
    scans: pd.DataFrame
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    distributions: tuple[str, ...] = ()
    groups: pd.DataFrame | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    warnings: tuple[str, ...] = ()
