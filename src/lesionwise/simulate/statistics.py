"""How many lesions, how large, how often confluent and where: fitted once, kept as a file.

Fit anew with::

    python -m lesionwise.simulate.statistics LESIONSTATS LESIONS --exclude 19

where LESIONSTATS holds ``lesion_stats_per_patient.csv`` and ``lesion_components.csv``
(26-connected components of consensus masks, at least 3 mm3) and LESIONS the masks
themselves on the MNI152 grid. Patient 19 is left out: its scan and mask validate the
models that are trained on simulated patients.
"""

from __future__ import annotations

import argparse
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT = Path(__file__).with_name("lesion_statistics.json")
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)


@lru_cache(maxsize=1)
def lesion_statistics() -> dict[str, Any]:
    """The fitted numbers; `_fit_statistics` says what each one is.

    Example:
        >>> lesion_statistics()["patients"]
        28
    """
    statistics: dict[str, Any] = json.loads(DEFAULT.read_text(encoding="utf-8"))
    return statistics


def _fit_statistics(lesionstats: Path, lesions: Path, exclude: tuple[int, ...]) -> dict[str, Any]:
    """Fit the distributions that simulated patients are drawn from.

    Returns:
        ``log_components``: mean and SD over patients of the log number of components;
        ``groups``: intercept and slope of the log expected number of confluent components
        on the log number of components (Poisson regression);
        ``single_volume_mm3``: quantiles (at ``levels``) of components that hold one unit;
        ``units_per_group``: quantiles of the units of a confluent component;
        ``log_unit_volume``: mean and SD over confluent components of the log of the mean
        volume of their units, and the slope on the log number of units;
        ``places``: share of components by place, single and confluent.
    """
    import pandas as pd
    import statsmodels.api as sm

    patients = pd.read_csv(lesionstats / "lesion_stats_per_patient.csv")
    patients = patients[~patients["patient"].isin(exclude)]
    components = pd.read_csv(lesionstats / "lesion_components.csv")
    components = components[~components["patient"].isin(exclude)]
    log_n = np.log(patients["n_ge_3mm3"])
    poisson = sm.GLM(
        patients["n_confluent_h1.0mm"], sm.add_constant(log_n), family=sm.families.Poisson()
    ).fit()
    single = components.loc[components["confluent"] == 0, "volume_mm3"]
    group = components[components["confluent"] == 1]
    log_units = np.log(group["dt_maxima_h1.0mm"])
    log_unit_volume = np.log(group["volume_mm3"]) - log_units
    slope, intercept = np.polyfit(log_units, log_unit_volume, 1)
    rest = log_unit_volume - intercept - slope * log_units
    return {
        "patients": len(patients),
        "excluded": list(exclude),
        "levels": list(LEVELS),
        "log_components": {"mean": _r(log_n.mean()), "sd": _r(log_n.std())},
        "groups": {
            "intercept": _r(poisson.params.iloc[0]),
            "slope": _r(poisson.params.iloc[1]),
        },
        "single_volume_mm3": [_r(v) for v in np.quantile(single, LEVELS)],
        "units_per_group": [_r(v) for v in np.quantile(group["dt_maxima_h1.0mm"], LEVELS)],
        "group_volume_mm3": [_r(v) for v in np.quantile(group["volume_mm3"], LEVELS)],
        "log_unit_volume": {"mean": _r(intercept), "slope": _r(slope), "sd": _r(rest.std())},
        "places": _places(lesions, exclude),
        "patient_quantiles": {
            name: [_r(v) for v in np.quantile(patients[name], LEVELS)]
            for name in (
                "n_ge_3mm3",
                "n_ge_14mm3",
                "total_load_ml",
                "n_confluent_h1.0mm",
                "fraction_of_load_in_confluent",
            )
        },
    }


def _places(lesions: Path, exclude: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Share of components in each place, by the template's zones (the masks lie in its space)."""
    import cc3d

    from lesionwise.instances.table import lesion_table
    from lesionwise.io.nifti import read_mask
    from lesionwise.simulate.anatomy import PLACES, head_grid, place_of, template_zones

    zones = template_zones()
    back = np.linalg.inv(head_grid().affine)
    counts = {kind: dict.fromkeys(PLACES, 0) for kind in ("single", "confluent")}
    for path in sorted(lesions.glob("sub-open*/ses-*/anat/*_mask.nii.gz")):
        if int(path.name.split("_")[0].removeprefix("sub-open")) in exclude:
            continue
        mask = read_mask(path)
        labels = cc3d.connected_components(mask.array, connectivity=26)
        for label, box in enumerate(lesion_table(labels, mask.grid).boxes(), start=1):
            index = np.argwhere(labels[box] == label) + [s.start for s in box]
            if len(index) < 3:
                continue
            world = mask.grid.world_mm(index)
            voxel = np.rint(world @ back[:3, :3].T + back[:3, 3]).astype(int)
            kind = "confluent" if len(index) >= 600 else "single"
            counts[kind][place_of(zones, voxel)] += 1
    return {
        kind: {place: _r(n / sum(found.values())) for place, n in found.items()}
        for kind, found in counts.items()
    }


def _r(value: float) -> float:
    return round(float(value), 4)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Fit the lesion statistics of the simulator.")
    parser.add_argument("lesionstats", type=Path)
    parser.add_argument("lesions", type=Path)
    parser.add_argument("--exclude", type=int, nargs="*", default=[])
    parser.add_argument("-o", "--output", type=Path, default=DEFAULT)
    a = parser.parse_args()
    found = _fit_statistics(a.lesionstats, a.lesions, tuple(a.exclude))
    a.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
