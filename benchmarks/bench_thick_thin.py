"""How many unchanged lesions seem new where slices are thick at one visit and thin at the other.

    python benchmarks/bench_thick_thin.py --masks ../shared/data/derivatives/lesions --slice 6

Every real lesion mask of 1 mm is one visit, and the same mask on thick slices, whose first lies at
a random height, is the other: a thick voxel counts as lesion where more than half of it is.
Lesions are 26-connected and of at least 14 mm³ and 3 mm; nothing changed between the visits. They
are followed at 1 mm by their outlines alone, with and without asking what the other visit's voxels
could show (``TrackingRules.min_visible_fraction``). To see that what really changes is still
called, every mask is also followed from an empty thick visit on, where all that thick slices would
show is new.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lesionwise.change.partial_volume import Acquisition
from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import track_lesions
from lesionwise.instances.components import connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.io.nifti import read_mask
from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import Grid, Instances, Volume


def thick_slices(mask: Volume, slice_mm: int, start: int) -> tuple[Volume, Grid]:
    """The mask where more than half of a thick voxel is filled, on its own grid; the thick grid."""
    fine = mask.array[..., start:]
    count = fine.shape[2] // slice_mm
    cut = fine[..., : count * slice_mm].reshape(*fine.shape[:2], count, slice_mm)
    affine = mask.grid.affine @ np.diag([1.0, 1.0, float(slice_mm), 1.0])
    affine[:3, 3] = (mask.grid.affine @ [0, 0, start + (slice_mm - 1) / 2, 1])[:3]
    grid = Grid((*fine.shape[:2], count), affine)
    shown = Volume(cut.mean(axis=3) > 0.5, grid)
    return resample_to(shown, mask.grid, order=0), grid


def lesions_of(mask: Volume) -> Instances:
    return DropSmall()(Instances(connected_components(mask.array), mask.grid))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--slice", type=int, default=6, help="Of the thick visit, mm.")
    given = parser.parse_args()
    rng = np.random.default_rng(3)
    ways = {"voxels asked": TrackingRules(), "not asked": TrackingRules(min_visible_fraction=0.0)}
    counts: dict[str, list[list[int]]] = {way: [] for way in ways}
    for path in sorted(given.masks.glob("sub-*/**/*_mask.nii.gz")):
        mask = read_mask(path)
        shown, grid = thick_slices(mask, given.slice, int(rng.integers(given.slice)))
        thin, thick = lesions_of(mask), lesions_of(shown)
        empty = Instances(np.zeros_like(thin.labels), thin.grid)
        fine, coarse = (Acquisition(each, np.eye(4)) for each in (mask.grid, grid))
        for way, rules in ways.items():
            onto_thin = track_lesions([thick, thin], rules, acquisitions=[coarse, fine])
            onto_thick = track_lesions([thin, thick], rules, acquisitions=[fine, coarse])
            all_new = track_lesions([empty, thin], rules, acquisitions=[coarse, fine])
            counts[way].append(
                [
                    int(thin.labels.max()),
                    int(thick.labels.max()),
                    int(onto_thin.counts().loc[1, "new"]),
                    int(onto_thick.counts().loc[1, "disappeared"]),
                    int(all_new.counts().loc[1, "new"]),
                ]
            )
        print(path.name.split("_")[0], {way: rows[-1] for way, rows in counts.items()}, flush=True)
    print(
        "in all: lesions thin, thick, falsely new, falsely disappeared, new where all are; medians"
    )
    for way, rows in counts.items():
        table = np.array(rows)
        print(f"{way:14s}", table.sum(axis=0).tolist(), np.median(table, axis=0).tolist())


if __name__ == "__main__":
    main()
