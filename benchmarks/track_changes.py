"""How well lesions are followed between two visits: on simulated patients and on real pairs.

    lesionwise simulate -o pairs --patients 10 --visits 2 --seed 77 --lesion-change 3 \\
      --spacing 1 1 1
    lesionwise simulate -o stable --patients 10 --visits 2 --seed 78 --lesion-change 0 --new-scanner
    python benchmarks/track_changes.py --changing pairs --stable stable --real ../shared/data OUT

Changing patients: of every class (new, gone, growing, shrinking, stable) precision and recall over
lesions of at least 14 mm³ and 3 mm, once from the known instances of both visits on their own
grids (what following alone costs) and once from the shipped model's. A lesion found belongs to the
known lesion it matches at IoU > 0.1. Stable patients, whose second visit is on another scanner:
lesions falsely called new. Real pairs: against the masks of change that come with them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from lesionwise.change.tracking import Tracks, track_lesions
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.matching import count_overlaps, match
from lesionwise.io.bids import read_dataset
from lesionwise.io.files import read_table, write_table
from lesionwise.io.nifti import read_labels, read_mask
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.registration import rigid
from lesionwise.run.compare import Comparison, compare, labels_on
from lesionwise.run.predict import LoadedModel, load_model
from lesionwise.types import Instances, Study, Volume

CLASSES = ("new", "gone", "growing", "shrinking", "stable")
WAYS = ("known", "found", "found, no faint")
"""Known instances; the model's; the model's without the rules that call a lesion faint rather than
new or gone."""


def scans_of(root: Path, subject: str) -> list[Path]:
    """FLAIR files of a subject in the order of visits."""
    return sorted((root / f"sub-{subject}").rglob("*_FLAIR.nii.gz"))


def known_states(root: Path, study: Study) -> tuple[dict[int, str], set[int]]:
    """Of the last visit's lesions their state by label, and the labels gone since the first."""
    folder = root / "derivatives" / "truth" / f"sub-{study.subject}"
    path = next(folder.rglob(f"*ses-{study.followup.session}*seg-truth_dseg.tsv"))
    table = read_table(path).astype({"index": int})
    gone = json.loads(path.with_suffix(".json").read_text())["GoneSinceTheVisitBefore"]
    return dict(zip(table["index"], table["change"], strict=True)), set(gone)


def known_instances(study: Study) -> list[Instances]:
    """The known lesions of both visits that are large enough to count."""
    labels = [visit.labels["instances"] for visit in study.visits]
    return [DropSmall()(Instances(v.array.astype(np.int32), v.grid)) for v in labels]


def partners(known: Instances, found: Instances) -> dict[int, int]:
    """Known label by found label."""
    overlaps = count_overlaps(known.labels, found.labels)
    pairs = match(overlaps)
    return {
        int(overlaps.prediction_ids[p]): int(overlaps.reference_ids[r])
        for p, r in zip(pairs.prediction_rows, pairs.reference_rows, strict=True)
    }


def count(
    tracks: Tracks,
    known: list[Instances],
    found: list[Instances],
    states: dict[int, str],
    gone: set[int],
) -> dict[str, np.ndarray]:
    """By class: hits, lesions found in it, lesions known in it."""
    rows = tracks.lineages[(tracks.lineages["visit"] == 1) & (tracks.lineages["label"] > 0)]
    said = dict(zip(rows["label"], rows["state"], strict=True))
    first = tracks.lineages[tracks.lineages["visit"] == 0]
    lost = set(first.loc[first["becomes"] == "gone", "label"])
    last_pairs = partners(known[1], found[1])
    first_pairs = partners(known[0], found[0])
    known_last = set(np.unique(known[1].labels)) - {0}
    known_first = set(np.unique(known[0].labels)) - {0}
    counts = {}
    for name in CLASSES:
        if name == "gone":
            wanted, called, pairs = known_first & gone, lost, first_pairs
        else:
            wanted = {label for label in known_last if states.get(label) == name}
            called = {label for label, state in said.items() if state == name}
            pairs = last_pairs
        hits = {pairs[label] for label in called if label in pairs} & wanted
        counts[name] = np.array([len(hits), len(called), len(wanted)])
    return counts


def without_faint(done: Comparison) -> Tracks:
    """The same lesions followed without looking at the other visit's probability."""
    common = done.found[0].prepared_maps.grid
    shared = [
        labels_on(visit.main[1], common, world)
        for visit, world in zip(done.found, done.to_common, strict=True)
    ]
    return track_lesions(shared)


def followed(study: Study) -> tuple[Tracks, list[Instances]]:
    """The known lesions followed, and what was followed: both visits on the first one's grid, by
    registration of the scans. Lesions too small to count are seen faintly."""
    a, b = study.visits
    world = rigid(a.scans["flair"], b.scans["flair"], fixed_mask=a.brain, moving_mask=b.brain)
    grid = a.labels["instances"].grid

    def laid(labels: list[Instances]) -> list[Instances]:
        return [labels[0], labels_on(labels[1], grid, world)]

    shared = laid(known_instances(study))
    everything = [
        Instances(v.labels["instances"].array.astype(np.int32), v.labels["instances"].grid)
        for v in study.visits
    ]
    seen = [(visit.labels > 0).astype(np.float32) for visit in laid(everything)]
    return track_lesions(shared, probabilities=seen), shared


def changing(root: Path, output: Path, model: LoadedModel) -> pd.DataFrame:
    """Precision and recall of each class, over all lesions of all patients."""
    totals = {way: {name: np.zeros(3, int) for name in CLASSES} for way in WAYS}
    for study in read_dataset(root):
        states, gone = known_states(root, study)
        known = known_instances(study)
        tracks, shared = followed(study)
        by_truth = count(tracks, shared, shared, states, gone)
        done = compare(scans_of(root, study.subject), output / study.subject, model=model)
        found = [visit.main[1] for visit in done.found]
        by_model = count(done.tracks, known, found, states, gone)
        without = count(without_faint(done), known, found, states, gone)
        for name in CLASSES:
            totals["known"][name] += by_truth[name]
            totals["found"][name] += by_model[name]
            totals["found, no faint"][name] += without[name]
        print(study.subject, {name: by_model[name].tolist() for name in CLASSES}, flush=True)
    rows = []
    for way, counted in totals.items():
        for name, (hits, called, wanted) in counted.items():
            rows.append(
                {
                    "instances": way,
                    "class": name,
                    "known": wanted,
                    "called": called,
                    "precision": hits / called if called else np.nan,
                    "recall": hits / wanted if wanted else np.nan,
                }
            )
    return pd.DataFrame(rows)


def stable(root: Path, output: Path, model: LoadedModel) -> pd.DataFrame:
    """Lesions falsely called new or gone in patients in whom nothing changed."""
    rows = []
    for study in read_dataset(root):
        truth = followed(study)[0].counts().loc[1]
        done = compare(scans_of(root, study.subject), output / study.subject, model=model)
        said = done.tracks.counts().loc[1]
        plain = without_faint(done).counts().loc[1]
        row = {"patient": study.subject, "lesions": int(done.summary["lesions"].iloc[-1])}
        for name in ("new", "gone", "growing", "shrinking"):
            row[f"{name} (known instances)"] = int(truth[name])
            row[name] = int(said[name])
            row[f"{name} (no faint)"] = int(plain[name])
        rows.append(row)
        print(row, flush=True)
    return pd.DataFrame(rows)


def real(root: Path, output: Path, model: LoadedModel) -> pd.DataFrame:
    """New lesions of the real pairs against the plausible ones, and change against change."""
    rows = []
    for folder in sorted((root / "derivatives" / "coregistered").glob("sub-*")):
        subject = folder.name.removeprefix("sub-")
        done = compare(scans_of(root, subject), output / subject, model=model)
        rows.append({"pair": subject, **_against_masks(done, folder)})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def _against_masks(done: Comparison, folder: Path) -> dict[str, object]:
    """In the common space of the masks, which is brought onto the first visit's own grid."""
    name = folder.name
    plausible = read_mask(folder / "anat" / f"{name}_space-common_desc-plausiblenew_mask.nii.gz")
    change = read_labels(folder / "anat" / f"{name}_space-common_desc-changesign_dseg.nii.gz")
    image = next((folder / "ses-02").rglob("*_space-common_FLAIR.nii.gz"))
    from lesionwise.io.nifti import read_volume

    common = read_volume(image)
    last = done.found[-1]
    scan = next(iter(last.visit.scans.values()))
    world = rigid(common, scan, moving_mask=last.brain)
    rows = done.tracks.lineages[done.tracks.lineages["visit"] == 1].query("label > 0")

    def of(states: tuple[str, ...]) -> np.ndarray:
        labels = rows.loc[rows["state"].isin(states), "label"].to_numpy()
        mask = Volume(np.isin(last.main[1].labels, labels), last.mask.grid)
        return resample_to(mask, common.grid, order=0, world=world).array

    new = of(("new",))
    reference = resample_to(plausible, common.grid, order=0).array > 0
    grown = resample_to(change, common.grid, order=0).array > 0
    labels, count_new = _components(new)
    wanted, count_wanted = _components(reference)
    return {
        "plausible new": count_wanted,
        "called new": count_new,
        "plausible ones found": len(set(np.unique(wanted[new])) - {0}),
        "called ones on them": len(set(np.unique(labels[reference])) - {0}),
        "called ones on any change": len(set(np.unique(labels[grown])) - {0}),
    }


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    from lesionwise.instances.components import connected_components

    labels = connected_components(mask)
    return labels, int(labels.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--changing", type=Path)
    parser.add_argument("--stable", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--model", default="conflunet")
    given = parser.parse_args()
    model = load_model(given.model)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, measure in (("changing", changing), ("stable", stable), ("real", real)):
        root = getattr(given, name)
        if root is None:
            continue
        table = measure(root, given.output / name, model)
        write_table(given.output / f"{name}.tsv", table)
        print(table.to_markdown(index=False, floatfmt=".2f") if _tabulates() else table)
        if name == "stable":
            print("medians:", table.drop(columns="patient").median().to_dict())


def _tabulates() -> bool:
    import importlib.util

    return importlib.util.find_spec("tabulate") is not None


if __name__ == "__main__":
    main()
