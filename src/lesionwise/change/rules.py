"""The kinds of change and the limits that decide between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STATES = (
    "stable",
    "new",
    "enlarging",
    "shrinking",
    "split",
    "merged",
    "disappeared",
    "too small",
    "baseline",
    "equivocal",
)
"""What a lesion is at a visit. The position here, counted from 1, is the code in change maps.

``split`` and ``merged``: one lesion became several, or several became one, and their summed volume
changed by no more than that of an unchanged lesion does; else they are enlarging or shrinking.
``too small``: without a partner, but not large enough to be called new or disappeared.
``baseline``: at the first visit, with nothing to compare it to.
``equivocal``: without a partner, but the scans do not show that it appeared or disappeared: its
place did not become brighter (or darker) beyond rescan noise, the other visit's probability shows
it below its threshold, or the other visit's slices are too thick to show it or end before it; so
it may have been there, or be there still. Without the scans also what has a low probability at
its own visit.
"""


@dataclass(frozen=True)
class TrackingRules:
    """What counts as the same place and as a change.

    Attributes:
        tolerance_mm: error of registration: lesions without overlap can be the same place
            when voxel centers of theirs lie within it.
        min_overlap_fraction: fraction of the smaller lesion's voxels that must be common before
            two lesions count as the same place without doubt.
        min_across_mm: smallest size of a new or a disappeared lesion: the greatest extent of its
            bounding box along a voxel axis.
        rescan_boundary_mm, rescan_relative, rescan_mm3: how much an unchanged lesion varies
            from scan to scan. A change of volume is growth or shrinkage where it exceeds all
            three: what the boundary's uncertainty makes of the surface of a ball as large as
            the mean of the two volumes, a fraction of that mean, and a volume. The boundary
            decides in the usual range: 0.4 mm is 67 % of a lesion of 24 mm³, 42 % of 100 mm³
            and 19 % of 1000 mm³. ``benchmarks/bench_rescan.py`` measures it on real masks.
        max_other_probability: a lesion without a partner is equivocal rather than new or
            disappeared where the other visit's mean probability in it exceeds this, and
        min_own_probability: where its own visit's mean probability does not reach this. Both take
            effect where probabilities are given, the second only where the scans say nothing
            about the place; 1 and 0 switch them off.
        min_contrast_gain: where the scans are given, a lesion is new (or disappeared) only where
            at least this fraction of its contrast was not there before (is not there any more),
        min_z: its place became brighter (darker) by this many standard deviations of the noise
            between the scans, on average over its voxels, and
        min_visible_fraction: the other visit's voxels would have shown more than this fraction of
            its contrast, had it been there, compared to those of its own visit. 0 switches
            the last one off.
        min_border_z: where the scans are given, growth and shrinkage count where the voxels that
            were gained became brighter (that were lost, darker) by this much; else the lesion
            was outlined differently and is stable. There a change of volume need only exceed
        shown_fraction: of the rescan variability, since that is mostly a matter of where the
            outline was drawn, which the scans tell apart.
        rescue_probability: what a later visit shows above this, though below its threshold, and
            what its size filter dropped, is taken for a lesion after all where the scans show
            that it appeared: with this and
        rescue_contrast_gain, rescue_z: stricter limits in the place of the two above. 1 switches
            it off. ``benchmarks/track_changes.py`` shows what these rules do.
    """

    tolerance_mm: float = 2.0
    min_overlap_fraction: float = 0.25
    min_across_mm: float = 3.0
    rescan_boundary_mm: float = 0.4
    rescan_relative: float = 0.1
    rescan_mm3: float = 10.0
    max_other_probability: float = 0.2
    min_own_probability: float = 0.6
    min_contrast_gain: float = 0.7
    min_z: float = 3.0
    min_visible_fraction: float = 0.5
    min_border_z: float = 2.0
    shown_fraction: float = 0.5
    rescue_probability: float = 0.2
    rescue_contrast_gain: float = 0.8
    rescue_z: float = 4.0

    def limit_mm3(self, before_mm3: float, after_mm3: float) -> float:
        """The change of volume that growth or shrinkage must exceed."""
        mean_mm3 = (before_mm3 + after_mm3) / 2
        surface_mm2 = (36 * np.pi) ** (1 / 3) * mean_mm3 ** (2 / 3)
        boundary_mm3 = self.rescan_boundary_mm * float(surface_mm2)
        return max(self.rescan_mm3, self.rescan_relative * mean_mm3, boundary_mm3)
