"""Names of all files of an output folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lesionwise.io.names import Entities, derivative_path, natural, parse_name

DESCRIPTION = "dataset_description.json"
SCANS = "scans.tsv"
LESIONS = "lesions.tsv"
FAILURES = "failures.tsv"
INDEX = "index.html"
COMPARISON = "compare.json"
VISITS = "visits.tsv"
TRACKS = "tracks.tsv"
TRACKS_BEFORE = "lineages.tsv"
"""What ``tracks.tsv`` was called before."""
LINKS = "links.tsv"
SCORES = "scores.tsv"
PAIRS = "pairs.tsv"
NEW_LESIONS = "new_lesions.tsv"
PARTICIPANTS = "participants.tsv"
EVALUATION = "evaluate.json"
"""What was asked of ``evaluate``, in the folder of its results."""
CONSENSUS = "consensus"
"""The folder beside it for the consensus masks of several raters."""
TRUTH = "truth"
"""How known lesions are called among the instance separation methods."""


def lesions_by(method: str) -> str:
    """The table of all lesions by an instance separation method that is not the main one.

    Example:
        >>> lesions_by("acls")
        'lesions_seg-acls.tsv'
    """
    return f"lesions_seg-{method}.tsv"


def beside(path: Path, extension: str) -> Path:
    """The file of the same name with another extension.

    Example:
        >>> beside(Path("sub-01_mask.nii.gz"), ".json")
        PosixPath('sub-01_mask.json')
    """
    stem = path.name
    for known in (".nii.gz", ".nii", ".tsv", ".json"):
        if stem.lower().endswith(known):
            stem = stem[: -len(known)]
            break
    return path.with_name(stem + extension)


@dataclass(frozen=True)
class ScanFiles:
    """Where the results of one scan lie: ``root/sub-…/[ses-…/]anat/``.

    Attributes:
        root: the output folder.
        scan: entities of the scan; all that it states are kept in every name.

    Example:
        >>> ScanFiles(Path("out"), Entities(sub="01", acq="2D")).mask.name
        'sub-01_acq-2D_space-orig_label-L_mask.nii.gz'
    """

    root: Path
    scan: Entities

    def path(self, suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        """The place of a result, whose name states these entities beside the scan's own."""
        return derivative_path(self.root, self.scan, suffix, extension, **stated)

    @property
    def name(self) -> str:
        """The scan's own name, such as ``sub-01_ses-01_acq-2D``: no two of a folder share it."""
        return scan_name(self.scan)

    @property
    def converted(self) -> Path:
        """The image that a DICOM series was converted to."""
        return self.path("FLAIR", space="")

    @property
    def mask(self) -> Path:
        return self.path("mask", label="L")

    @property
    def sidecar(self) -> Path:
        """Written last: if it exists, the results of the scan are complete."""
        return self.path("mask", ".json", label="L")

    @property
    def probability(self) -> Path:
        return self.path("probseg", label="L")

    @property
    def brain(self) -> Path:
        return self.path("mask", desc="brain")

    def instances(self, method: str) -> Path:
        """The instance map by a separation method; ``truth`` for known lesions."""
        return self.path("dseg", seg=method)

    def stage(self, number: int) -> Path:
        """The picture after a preprocessing step, in ``figures`` beside ``anat``."""
        path = self.path("FLAIR", ".webp", desc=f"step{number}")
        return path.parent.with_name("figures") / path.name

    @property
    def page(self) -> str:
        """Name of the scan's page in the output folder."""
        return f"{self.name}.html"

    @property
    def new_mask(self) -> Path:
        """New lesions of a comparison."""
        return self.path("mask", desc="new")

    @property
    def change(self) -> Path:
        """The state of each lesion since the visit before, on the scan's own grid."""
        return self.path("dseg", desc="change")

    @property
    def change_on_baseline(self) -> Path:
        """The same on the grid that all visits of a comparison share."""
        return self.path("dseg", desc="change", space="baseline")


@dataclass(frozen=True)
class PairFiles:
    """Where the new lesions of two visits lie, under the name of the visit they lie on."""

    root: Path
    scan: Entities

    def path(self, suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        return derivative_path(
            self.root, self.scan, suffix, extension, **{"label": "", "desc": "new", **stated}
        )

    @property
    def mask(self) -> Path:
        return self.path("mask")

    @property
    def sidecar(self) -> Path:
        """Written last: if it exists, the results of the pair are complete."""
        return self.path("mask", ".json")

    @property
    def probability(self) -> Path:
        return self.path("probseg")

    @property
    def brain(self) -> Path:
        return self.path("mask", label="brain")

    def instances(self, method: str) -> Path:
        return self.path("dseg", seg=method)

    def shown(self, channel: str) -> Path:
        """The prepared scan, where the results lie on its grid."""
        return self.path(channel.upper())


def pair_page(target: Entities, baseline: str, followup: str) -> str:
    """Name of the page of two visits in the output folder.

    Example:
        >>> pair_page(Entities(sub="01", ses="M12"), "M00", "M12")
        'sub-01_ses-M00_ses-M12_new.html'
    """
    kept = {k: v for k, v in _scan_pairs(target).items() if k not in ("sub", "ses")}
    more = "".join(f"_{key}-{value}" for key, value in kept.items())
    return f"sub-{target.sub}_ses-{baseline}_ses-{followup}{more}_new.html"


def scan_name(scan: Entities) -> str:
    """All entities of a scan as in its file name, without suffix and extension.

    Example:
        >>> scan_name(Entities(sub="01", ses="M12", run="2", suffix="FLAIR"))
        'sub-01_ses-M12_run-2'
    """
    return "_".join(f"{key}-{value}" for key, value in _scan_pairs(scan).items())


def scan_title(scan: Entities) -> str:
    """The same for reading: ``sub-01 ses-M12 run-2``.

    Example:
        >>> scan_title(Entities(sub="01", ses="M12", run="2"))
        'sub-01 ses-M12 run-2'
    """
    return scan_name(scan).replace("_", " ")


def _scan_pairs(scan: Entities) -> dict[str, str]:
    pairs = replace(scan, label="", desc="", seg="").pairs()
    if pairs.get("space") == "orig":
        del pairs["space"]
    return pairs


def finished_scans(root: Path, subject: str = "") -> Iterator[Entities]:
    """Every scan of a folder whose mask has a sidecar, in natural order.

    Args:
        subject: the only one, without ``sub-``; all if empty.

    Example:
        >>> list(finished_scans(Path(".")))
        []
    """
    yield from _finished(root, subject, "*_label-L_mask.json")


def finished_pairs(root: Path, subject: str = "") -> Iterator[Entities]:
    """The scan that each pair's new lesions lie on, in natural order.

    Example:
        >>> list(finished_pairs(Path(".")))
        []
    """
    yield from _finished(root, subject, "*_desc-new_mask.json")


def _finished(root: Path, subject: str, ending: str) -> Iterator[Entities]:
    found = root.glob(f"sub-{subject or '*'}/**/anat/{ending}")
    for path in sorted(found, key=lambda path: natural(path.name)):
        entities = parse_name(path)
        if entities is not None and not path.name.startswith("."):
            plain = replace(entities, label="", desc="", suffix="", extension="")
            yield replace(plain, space="") if plain.space == "orig" else plain
