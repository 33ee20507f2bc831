"""Sizes and confluence of simulated patients beside the real ones they were fitted to.

    python benchmarks/simulation_statistics.py LESIONSTATS --patients 50 --exclude 19

prints a table in Markdown: quantiles over patients and over components, real and
simulated. Lesions are measured as in LESIONSTATS: 26-connected components of the 1 mm
mask, at least 3 mm3; "confluent" means that the distance transform has more than one
maximum of height 1 mm. The simulated truth's own confluence is given beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cc3d
import numpy as np
import pandas as pd
from scipy import ndimage

from lesionwise.simulate.anatomy import compose, make_head
from lesionwise.simulate.lesions import paint, place_lesions
from lesionwise.simulate.masks import split_at_maxima

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def measure(labels: np.ndarray, patient: int) -> pd.DataFrame:
    """One row per component of a label map: volume, units by truth, units by shape."""
    parts = cc3d.connected_components(labels > 0, connectivity=26)
    shape_units = split_at_maxima(labels > 0)
    rows = []
    for part, box in enumerate(ndimage.find_objects(parts), start=1):
        own = parts[box] == part
        if own.sum() < 3:
            continue
        rows.append(
            {
                "patient": patient,
                "volume_mm3": int(own.sum()),
                "units": len(np.unique(labels[box][own])),
                "dt_maxima_h1.0mm": len(np.unique(shape_units[box][own])),
            }
        )
    return pd.DataFrame(rows)


def per_patient(components: pd.DataFrame) -> pd.DataFrame:
    grouped = components.groupby("patient")
    volume = components["volume_mm3"]
    by_shape = components["dt_maxima_h1.0mm"] > 1
    load = grouped["volume_mm3"].sum()
    in_confluent = (volume * by_shape).groupby(components["patient"]).sum()
    return pd.DataFrame(
        {
            "components": grouped.size(),
            "components of 14 mm3": grouped["volume_mm3"].agg(lambda v: (v >= 14).sum()),
            "load (ml)": load / 1000,
            "confluent components (by shape)": by_shape.groupby(components["patient"]).sum(),
            "share of load in them": in_confluent / load,
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lesionstats", type=Path)
    parser.add_argument("--patients", type=int, default=50)
    parser.add_argument("--heads", type=int, default=4, help="patients take turns in them")
    parser.add_argument("--exclude", type=int, nargs="*", default=[])
    a = parser.parse_args()

    real = pd.read_csv(a.lesionstats / "lesion_components.csv")
    real = real[~real["patient"].isin(a.exclude)]
    found, distances = [], []
    heads = [compose(make_head(np.random.default_rng(seed))) for seed in range(a.heads)]
    for number in range(a.patients):
        anatomy = heads[number % a.heads]
        growth = np.random.default_rng(1000 + number)
        labels = paint(place_lesions(growth, anatomy), 0, anatomy.white.shape).labels
        found.append(measure(labels, number))
        distances.append(touching_center_distances(labels))
    simulated = pd.concat(found)

    print(f"| quantity | | {' | '.join(f'{q:.0%}' for q in QUANTILES)} |")
    print("| --- " * (len(QUANTILES) + 2) + "|")
    tables = {"real": per_patient(real), "simulated": per_patient(simulated)}
    for name in tables["real"]:
        for kind, table in tables.items():
            _row(f"{name}, per patient", kind, table[name])
    both = {"real": real, "simulated": simulated}
    for kind, table in both.items():
        _row("volume of a component (mm3)", kind, table["volume_mm3"])
    for kind, table in both.items():
        confluent = table[table["dt_maxima_h1.0mm"] > 1]
        _row("volume of a confluent component (mm3)", kind, confluent["volume_mm3"])
    for kind, table in both.items():
        confluent = table[table["dt_maxima_h1.0mm"] > 1]
        _row("units of a confluent component, by shape", kind, confluent["dt_maxima_h1.0mm"])
    true = simulated[simulated["units"] > 1]
    _row("units of a confluent component, by truth", "simulated", true["units"])
    _row("distance between centers of touching units (mm)", "simulated", np.concatenate(distances))
    print(
        f"\nconfluent by truth: {len(true)} of {len(simulated)} components; "
        f"of these confluent by shape: {(true['dt_maxima_h1.0mm'] > 1).sum()}"
    )


def touching_center_distances(labels: np.ndarray) -> np.ndarray:
    """Distance in voxels between the centers of mass of each pair of labels that touch."""
    pairs = set()
    for axis in range(3):
        a = np.moveaxis(labels, axis, 0)[:-1]
        b = np.moveaxis(labels, axis, 0)[1:]
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= {tuple(sorted(p)) for p in zip(a[meet].tolist(), b[meet].tolist(), strict=True)}
    if not pairs:
        return np.empty(0)
    index = sorted({label for pair in pairs for label in pair})
    centers = dict(
        zip(index, np.array(ndimage.center_of_mass(labels > 0, labels, index)), strict=True)
    )
    return np.array([np.linalg.norm(centers[a] - centers[b]) for a, b in sorted(pairs)])


def _row(name: str, kind: str, values: object) -> None:
    found = np.quantile(np.asarray(values, dtype=float), QUANTILES) if len(values) else []
    print(f"| {name} | {kind} | {' | '.join(f'{v:.4g}' for v in found)} |")


if __name__ == "__main__":
    main()
