"""A recipe: one published system as numbers and parts, without behavior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lesionwise import defaults
from lesionwise.types import EMPTY, LearnedStep, Method, Refine, Step, Task, ToInstances


@dataclass(frozen=True)
class Citation:
    """The publication that describes a system, as its users cite it.

    Attributes:
        authors: names as printed, separated by commas; "" where none are printed.
        title: of the paper, chapter or report; a description in brackets where none is printed.
        year: of publication; None where none is printed.
        published: journal, proceedings or publisher.
        identifier: a DOI or arXiv number, only where one is printed.
    """

    authors: str = ""
    title: str = ""
    year: int | None = None
    published: str = ""
    identifier: str = ""

    def __str__(self) -> str:
        """One line: authors, title, publication, year, identifier.

        Example:
            >>> str(Citation("Ada Byron", "Notes", 1843, "Scientific Memoirs"))
            'Ada Byron. Notes. Scientific Memoirs, 1843'
        """
        where = ", ".join(text for text in (self.published, str(self.year or "")) if text)
        parts = (self.authors, self.title, where, self.identifier)
        return ". ".join(part.removesuffix(".") for part in parts if part)

    @property
    def short(self) -> str:
        """Authors and year, as in running text; without authors, the publication or the title.

        Example:
            >>> Citation("Ada Byron, Luigi Menabrea", "Notes", 1843).short
            'Byron and Menabrea 1843'
            >>> Citation("A. Byron et al.", "Notes", 1843).short
            'Byron et al. 1843'
        """
        if not self.authors:
            where = self.published.split(",")[0] or self.title
            return f"{where}, {self.year}" if self.year else where
        names = [name.strip() for name in self.authors.removesuffix(" et al.").split(",")]
        families = [name if "Team" in name else name.split()[-1] for name in names]
        if len(names) > 2 or self.authors.endswith(" et al."):
            who = f"{families[0]} et al."
        else:
            who = " and ".join(families)
        return f"{who} {self.year}" if self.year else who


MSSEG2 = (
    "Proceedings of MSSEG-2, the MICCAI challenge on multiple sclerosis new lesions segmentation "
    "using a data management and processing infrastructure"
)
"""The book that describes the systems of the challenge, one chapter each."""


def msseg2_chapter(title: str, authors: str = "") -> Citation:
    """A chapter of the MSSEG-2 proceedings.

    Example:
        >>> msseg2_chapter("[Chapter on a cascade]", "A. Byron et al.").short
        'Byron et al. 2021'
    """
    return Citation(authors, title, 2021, MSSEG2)


@dataclass(frozen=True)
class Output:
    """The grid results are returned on, and what is resampled to reach it.

    Attributes:
        grid: the first visit's input grid, the last visit's, or the grid prepared for the method.
        resample: what goes through interpolation; labels go by nearest neighbor.
    """

    grid: Literal["baseline", "followup", "prepared"] = "followup"
    resample: Literal["probability", "logits", "labels"] = "probability"


@dataclass(frozen=True)
class Recipe:
    """One system.

    Attributes:
        citation: the publication that describes the system.
        scans: the scans every visit must have, in channel order.
        preprocess: steps from the study as read to the study the method sees; those that learn
            are fitted on the training studies of each fold.
        method: how maps are learned and predicted.
        to_instances: how maps become lesions.
        threshold: the lesion mask is probability > threshold.
        min_peak: a connected region of the mask goes where its highest probability is below this.
        refine: filters that act on lesions, never on the mask.
        visits: how many time points it needs.
        task: what the mask is of.
        output: where results are returned.
        reported: the source's own scores, by metric name.
        departures: where we knowingly differ from the publication, and why.
        passage: where the project's own copies describe the system; for developers, never shown.
    """

    citation: Citation
    scans: tuple[str, ...]
    preprocess: tuple[Step | LearnedStep, ...]
    method: Method
    to_instances: ToInstances
    threshold: float = defaults.THRESHOLD
    min_peak: float = 0.0
    refine: tuple[Refine, ...] = ()
    visits: int = 1
    task: Task = "lesions"
    output: Output = Output()
    reported: Mapping[str, float] = field(default_factory=lambda: EMPTY)
    departures: tuple[str, ...] = ()
    passage: str = ""

    def __post_init__(self) -> None:
        for name in ("threshold", "min_peak"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {value:g}")
