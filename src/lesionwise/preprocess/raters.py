"""What each of several raters calls new."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from lesionwise.types import InputError, Study

RATERS = ("new-rater-1", "new-rater-2", "new-rater-3", "new-rater-4")


@dataclass(frozen=True)
class RatersOfNew:
    """Pairs with the new lesions of every rater, or with the consensus in their place.

    A pair of which only the consensus is known gets it for each rater, and the log says so. One
    without new lesions at all, as in prediction, passes unchanged.

    Attributes:
        raters: names of changes; data sets hold them as ``desc-newrater1`` and so on.
        consensus: the change that all agree on.

    Raises InputError where some raters' lesions are there and others' are not.
    """

    raters: tuple[str, ...] = RATERS
    consensus: str = "new"

    def __call__(self, study: Study) -> Study:
        present = [name for name in self.raters if name in study.changes]
        missing = [name for name in self.raters if name not in study.changes]
        if self.consensus not in study.changes or not missing:
            return study
        if present:
            raise InputError(
                f"sub-{study.subject}: has {', '.join(present)} but lacks {', '.join(missing)}"
            )
        logging.getLogger("lesionwise").warning(
            "%s: no new lesions by rater; the consensus stands for each", study.subject
        )
        filled = dict.fromkeys(self.raters, study.changes[self.consensus])
        return replace(study, changes={**study.changes, **filled})
