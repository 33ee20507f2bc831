"""Files of a simulated data set and of its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionwise.io.bids import dseg_table
from lesionwise.io.files import write_json, write_table
from lesionwise.io.names import Entities
from lesionwise.results.columns import read_typed
from lesionwise.results.names import DESCRIPTION, PARTICIPANTS, TRUTH, ScanFiles, beside
from lesionwise.results.words import state_name
from lesionwise.types import InputError

NAME = "Simulated patients with multiple sclerosis"
"""Of a simulated data set, in its description."""

TRUTH_NAME = "Truth of simulated patients"

LESION_COLUMNS = (
    "index", "name", "abbreviation", "color", "mapping", "volume_mm3", "location",
    "confluent_group", "units_in_group", "change",
)  # fmt: skip
"""Of the table beside the instances of the truth."""


@dataclass(frozen=True)
class SimulatedVisit:
    """Where one visit of a simulated patient and its truth lie.

    Attributes:
        root: of the data set.
        subject, session: without ``sub-`` and ``ses-``.

    Example:
        >>> SimulatedVisit(Path("sim"), "sim0001", "01").instances.name
        'sub-sim0001_ses-01_space-orig_seg-truth_dseg.nii.gz'
    """

    root: Path
    subject: str
    session: str

    @property
    def entities(self) -> Entities:
        return Entities(sub=self.subject, ses=self.session, suffix="FLAIR", extension=".nii.gz")

    @property
    def scan(self) -> Path:
        folder = self.root / f"sub-{self.subject}" / f"ses-{self.session}" / "anat"
        return folder / self.entities.name

    @property
    def _truth(self) -> ScanFiles:
        return ScanFiles(truth_of(self.root), self.entities)

    @property
    def mask(self) -> Path:
        return self._truth.mask

    @property
    def brain(self) -> Path:
        return self._truth.brain

    @property
    def tissue(self) -> Path:
        return self._truth.path("dseg")

    @property
    def instances(self) -> Path:
        return self._truth.instances(TRUTH)

    def change(self, state: str) -> Path:
        """The mask of one kind of change, under the present name of the state."""
        return self._truth.path("mask", desc=state_name(state))

    def write_lesions(
        self, rows: Sequence[Mapping[str, Any]], disappeared: Sequence[int] = ()
    ) -> None:
        """Write the table and the sidecar of the true instances.

        Args:
            rows: index, volume_mm3, location, confluent_group, units_in_group, change of each.
            disappeared: labels of the visit before that are not there any more.
        """
        known = dseg_table(row["index"] for row in rows).set_index("index")
        table = [
            {**known.loc[row["index"]].to_dict(), **row, "change": state_name(row.get("change"))}
            for row in rows
        ]
        write_table(beside(self.instances, ".tsv"), table, LESION_COLUMNS)
        write_json(beside(self.instances, ".json"), {"DisappearedSinceTheVisitBefore": disappeared})

    def read_lesions(self) -> list[dict[str, Any]]:
        """The rows of that table again.

        Raises:
            InputError: If it is missing or malformed.
        """
        table = read_typed(beside(self.instances, ".tsv"))
        rows = table.to_dict("records")
        return [{str(k): v for k, v in row.items()} for row in rows]


def truth_of(root: Path) -> Path:
    """The folder of the truth of a simulated data set.

    Example:
        >>> truth_of(Path("simulated")).as_posix()
        'simulated/derivatives/truth'
    """
    return root / "derivatives" / "truth"


def record_of(root: Path, subject: str) -> Path:
    """The file that says what decided a patient; written last.

    Example:
        >>> record_of(Path("simulated"), "01").name
        'sub-01_desc-simulation.json'
    """
    return truth_of(root) / f"sub-{subject}" / f"sub-{subject}_desc-simulation.json"


def check_simulated_output(root: Path, name: Any) -> None:
    """Pass where simulated patients may be written or added.

    Args:
        name: what the description there states; None without one.

    Raises:
        InputError: If the folder holds another data set or one of the files that would be
            overwritten.

    Example:
        >>> check_simulated_output(Path("sim"), NAME)  # patients may be added
        >>> check_simulated_output(Path("sim"), "MSSEG")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: sim: holds another data set; choose an empty folder
    """
    if name is not None and name != NAME:
        raise InputError(f"{root}: holds another data set; choose an empty folder")
    if name is None and root.is_dir():
        for path in sorted(root.iterdir()):
            if path.name in (DESCRIPTION, PARTICIPANTS) or path.name.startswith("sub-"):
                raise InputError(f"{path}: exists already; choose an empty folder")
