"""How well ``compare`` names what changed, on simulated patients and on real pairs.

    lesionwise simulate -o pairs --patients 10 --visits 2 --seed 77 --lesion-change 3 \\
      --spacing 1 1 1
    lesionwise simulate -o stable --patients 10 --visits 2 --seed 78 --lesion-change 0 --new-scanner
    python benchmarks/track_changes.py --changing pairs --stable stable --real ../shared/data OUT

Every pair is compared by ``compare`` once; a folder in OUT that the same model made stands, and its
lesions are followed again from its files.

Changing patients: of every class (new, disappeared, enlarging, shrinking, stable) precision and
recall over lesions of at least 14 mm³ and 3 mm. A lesion found belongs to the known lesion it
matches one to one at IoU > 0.1. Since a lesion found in two pieces matches one of them, there is
also the share of those called that lie on a known lesion of the class, by most common voxels,
whatever its size; and, since the simulation calls every change beyond a tenth growth or shrinkage,
the recall of those known ones that changed by more than the stated rescan variability.
Stable patients, whose second visit is on another scanner: lesions falsely called. Real pairs:
against the masks of change that come with them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import Tracks, track_lesions
from lesionwise.instances.components import connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.matching import match
from lesionwise.instances.table import overlap_table
from lesionwise.io.bids import read_dataset
from lesionwise.io.files import read_json, read_table, write_table
from lesionwise.io.nifti import read_grid, read_labels, read_mask, read_volume
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.registration import rigid
from lesionwise.run.compare import compare
from lesionwise.run.follow import VisitInput, follow, labels_on
from lesionwise.run.load_model import LoadedModel, load_model
from lesionwise.types import Grid, Instances, Study

CLASSES = ("new", "disappeared", "enlarging", "shrinking", "stable")
CALLED = ("new", "disappeared", "enlarging", "shrinking")
KNOWN = {"growing": "enlarging", "gone": "disappeared"}
"""States as the simulation calls them."""
OVERLAP = TrackingRules(max_other_probability=1.0, min_own_probability=0.0)


@dataclass(frozen=True, eq=False)
class Pair:
    """What ``compare`` made of two visits, as its files tell it."""

    visits: tuple[VisitInput, VisitInput]
    to_common: tuple[np.ndarray, np.ndarray]
    common: Grid

    def shared(self, lesions: tuple[Instances, Instances]) -> list[Instances]:
        return [
            labels_on(each, self.common, world)
            for each, world in zip(lesions, self.to_common, strict=True)
        ]

    def ways(self) -> dict[str, tuple[Tracks, tuple[Instances, ...]]]:
        """Followed with the scans as evidence, with the maps alone, and by overlap alone."""
        followed = follow(self.visits, self.to_common, self.common)
        found = (self.visits[0].lesions, self.visits[1].lesions)
        shared = self.shared(found)
        maps = [
            resample_to(visit.probability, self.common, order=1, world=world).array
            for visit, world in zip(self.visits, self.to_common, strict=True)
        ]
        return {
            "found, scans asked": (followed.tracks, followed.lesions),
            "found, maps asked": (track_lesions(shared, probabilities=maps), found),
            "found, overlap alone": (track_lesions(shared, OVERLAP), found),
        }


def compared(root: Path, subject: str, folder: Path, model: LoadedModel) -> Pair:
    """The pair compared by ``compare``, unless the folder holds that already."""
    made = folder / "compare.json"
    if not made.exists() or read_json(made)["ModelHash"] != model.sha256:
        scans = sorted((root / f"sub-{subject}").rglob("*_FLAIR.nii.gz"))
        compare(scans, folder, model=model)
    about = read_json(made)
    rescued = about.get("FoundByFollowing", [[], []])
    visits = []
    for source, added in zip(about["Sources"], rescued, strict=True):
        name = Path(source).name.removesuffix("_FLAIR.nii.gz")
        anat = next(folder.rglob(f"{name}*_label-L_probseg.nii.gz")).parent

        def one(suffix: str, anat: Path = anat, name: str = name) -> Path:
            return next(anat.glob(f"{name}*_{suffix}.nii.gz"))

        labels = read_labels(one("seg-offsets_dseg"))
        kept = np.where(np.isin(labels.array, added), 0, labels.array).astype(np.int32)
        visits.append(
            VisitInput(
                read_volume(source),
                read_mask(one("desc-brain_mask")),
                read_volume(one("label-L_probseg")),
                Instances(kept, labels.grid),
            )
        )
    common = read_grid(next(folder.rglob("*_space-baseline_desc-change_dseg.nii.gz")))
    first, second = (np.array(each) for each in about["FirstVisitToVisitMm"])
    return Pair((visits[0], visits[1]), (first, second), common)


def known_states(root: Path, study: Study) -> tuple[dict[int, str], set[int]]:
    """Of the last visit's lesions their state by label, and the labels that disappeared."""
    folder = root / "derivatives" / "truth" / f"sub-{study.subject}"
    path = next(folder.rglob(f"*ses-{study.followup.session}*seg-truth_dseg.tsv"))
    table = read_table(path).astype({"index": int})
    about = json.loads(path.with_suffix(".json").read_text())
    lost = about.get("DisappearedSinceTheVisitBefore") or about.get("GoneSinceTheVisitBefore", ())
    states = table["change"].replace(KNOWN)
    return dict(zip(table["index"], states, strict=True)), set(lost)


def known_instances(study: Study) -> tuple[Instances, Instances]:
    """The known lesions of both visits, under their own labels."""
    first, second = (visit.labels["instances"] for visit in study.visits)
    return (
        Instances(first.array.astype(np.int32), first.grid),
        Instances(second.array.astype(np.int32), second.grid),
    )


def large(known: tuple[Instances, Instances]) -> tuple[Instances, Instances]:
    """Those large enough to count; they keep their labels, by which the truth names them."""
    keep = DropSmall(relabel=False)
    return keep(known[0]), keep(known[1])


def known_followed(pair: Pair, known: tuple[Instances, Instances]) -> Tracks:
    """The known lesions followed; those too small to count are seen faintly."""
    seen = [(visit.labels > 0).astype(np.float32) for visit in pair.shared(known)]
    return track_lesions(pair.shared(large(known)), probabilities=seen)


def partners(known: Instances, found: Instances) -> dict[int, int]:
    """Known label by found label, one to one."""
    overlaps = overlap_table(known.labels, found.labels)
    pairs = match(overlaps)
    return {
        int(overlaps.prediction_ids[p]): int(overlaps.reference_ids[r])
        for p, r in zip(pairs.prediction_rows, pairs.reference_rows, strict=True)
    }


def places(known: Instances, found: Instances) -> dict[int, int]:
    """Known label by found label: the one with most common voxels, where there is one."""
    both = (known.labels > 0) & (found.labels > 0)
    table = pd.DataFrame({"found": found.labels[both], "known": known.labels[both]})
    counts = table.value_counts().reset_index(name="voxels").sort_values("voxels")
    return dict(zip(counts["found"], counts["known"], strict=True))


def volumes_mm3(lesions: Instances) -> dict[int, float]:
    """Volumes by label."""
    voxels = np.bincount(lesions.labels.ravel())
    labels = np.flatnonzero(voxels[1:]) + 1
    return {int(n): float(voxels[n]) * lesions.grid.voxel_volume_mm3 for n in labels}


def changed_beyond(known: tuple[Instances, Instances]) -> set[int]:
    """Labels of known lesions whose volume changed by more than the rescan variability."""
    rules = TrackingRules()
    before, after = (volumes_mm3(each) for each in known)
    return {
        label
        for label in before.keys() & after.keys()
        if abs(after[label] - before[label]) > rules.limit_mm3(before[label], after[label])
    }


def count(
    tracks: Tracks,
    known: tuple[Instances, Instances],
    found: tuple[Instances, ...],
    states: Mapping[int, str],
    lost: set[int],
) -> dict[str, np.ndarray]:
    """By class: hits, lesions found in it, lesions known in it, those found that lie on one.

    And hits and known ones among those whose volume changed by more than the rescan variability.
    """
    rows = tracks.table[(tracks.table["visit"] == 1) & (tracks.table["label"] > 0)]
    said = dict(zip(rows["label"], rows["state"], strict=True))
    first = tracks.table[tracks.table["visit"] == 0]
    ended = set(first.loc[first["becomes"] == "disappeared", "label"])
    counted = large(known)
    beyond = changed_beyond(known)
    counts = {}
    for name in CLASSES:
        at = 0 if name == "disappeared" else 1
        of_class = lost if at == 0 else {label for label, state in states.items() if state == name}
        called = ended if at == 0 else {label for label, state in said.items() if state == name}
        wanted = (set(np.unique(counted[at].labels)) - {0}) & of_class
        pairs, place = partners(counted[at], found[at]), places(known[at], found[at])
        hits = {pairs[label] for label in called if label in pairs} & wanted
        placed = sum(place.get(label) in of_class for label in called)
        clear = (len(hits & beyond), len(wanted & beyond))
        counts[name] = np.array([len(hits), len(called), len(wanted), placed, *clear])
    return counts


def changing(root: Path, output: Path, model: LoadedModel) -> pd.DataFrame:
    """Precision and recall of each class, over all lesions of all patients."""
    totals: dict[str, dict[str, np.ndarray]] = {}
    for study in read_dataset(root):
        states, lost = known_states(root, study)
        known = known_instances(study)
        pair = compared(root, study.subject, output / study.subject, model)
        shared = pair.shared(known)
        ways = {"known": (known_followed(pair, known), None), **pair.ways()}
        for way, (tracks, found) in ways.items():
            truth = known if found else (shared[0], shared[1])
            counted = count(tracks, truth, found or large(truth), states, lost)
            sums = totals.setdefault(way, {name: np.zeros(6, int) for name in CLASSES})
            for name in CLASSES:
                sums[name] += counted[name]
        print(study.subject, {name: v.tolist() for name, v in totals[way].items()}, flush=True)
    rows = []
    for way, sums in totals.items():
        for name, (hits, called, wanted, placed, clear_hits, clear) in sums.items():
            rows.append(
                {
                    "instances": way,
                    "class": name,
                    "known": wanted,
                    "called": called,
                    "precision": hits / called if called else np.nan,
                    "recall": hits / wanted if wanted else np.nan,
                    "on one": placed / called if called else np.nan,
                    "beyond rescan": clear,
                    "recall beyond": clear_hits / clear if clear else np.nan,
                }
            )
    return pd.DataFrame(rows)


def stable(root: Path, output: Path, model: LoadedModel) -> pd.DataFrame:
    """Lesions falsely called changed in patients in whom nothing changed."""
    rows = []
    for study in read_dataset(root):
        pair = compared(root, study.subject, output / study.subject, model)
        known = known_followed(pair, known_instances(study))
        for way, (tracks, _) in {"known": (known, ()), **pair.ways()}.items():
            said = tracks.counts().loc[1]
            rows.append(
                {"patient": study.subject, "instances": way}
                | {name: int(said[name]) for name in CALLED}
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def real(root: Path, output: Path, model: LoadedModel) -> pd.DataFrame:
    """New lesions of the real pairs against the plausible ones, and change against change."""
    rows = []
    for folder in sorted((root / "derivatives" / "coregistered").glob("sub-*")):
        subject = folder.name.removeprefix("sub-")
        pair = compared(root, subject, output / subject, model)
        for way, (tracks, found) in pair.ways().items():
            rows.append({"pair": subject, "way": way, **_against(pair, tracks, found[1], folder)})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def _against(pair: Pair, tracks: Tracks, lesions: Instances, folder: Path) -> dict[str, object]:
    """New lesions against the masks, in the common space of the masks."""
    name = folder.name
    plausible = read_mask(folder / "anat" / f"{name}_space-common_desc-plausiblenew_mask.nii.gz")
    change = read_labels(folder / "anat" / f"{name}_space-common_desc-changesign_dseg.nii.gz")
    image = read_volume(next((folder / "ses-02").rglob("*_space-common_FLAIR.nii.gz")))
    last = pair.visits[1]
    world = rigid(image, last.scan, moving_mask=last.brain)
    rows = tracks.table[(tracks.table["visit"] == 1) & (tracks.table["label"] > 0)]
    labels = rows.loc[rows["state"] == "new", "label"].to_numpy()
    new = replace(lesions, labels=np.where(np.isin(lesions.labels, labels), lesions.labels, 0))
    called = labels_on(new, image.grid, world).labels
    wanted = connected_components(resample_to(plausible, image.grid, order=0).array > 0)
    changed = resample_to(change, image.grid, order=0).array > 0
    return {
        "plausible new": int(wanted.max()),
        "called new": len(labels),
        "plausible ones found": len(set(np.unique(wanted[called > 0])) - {0}),
        "called ones on them": len(set(np.unique(called[wanted > 0])) - {0}),
        "called ones on any change": len(set(np.unique(called[changed])) - {0}),
    }


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
        print(table.to_string(index=False, float_format="%.2f"))
        if name == "stable":
            print(table.drop(columns="patient").groupby("instances", sort=False).median())


if __name__ == "__main__":
    main()
