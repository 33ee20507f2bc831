"""Words that tables and pages share, and the older words that stand in folders written before."""

from __future__ import annotations

from typing import Any

from lesionwise.change.rules import STATES as STATES

CHANGES = tuple(state for state in STATES if state != "baseline")

_BEFORE = {"growing": "enlarging", "gone": "disappeared", "faint": "equivocal"}
"""States as they were called before."""


def state_name(word: Any) -> Any:
    """The present name of a state; anything else as it is.

    Example:
        >>> state_name("gone"), state_name("new")
        ('disappeared', 'new')
    """
    return _BEFORE.get(word, word) if isinstance(word, str) else word


def subject_name(label: str) -> str:
    """A subject as all tables write it: ``sub-01``, whether or not ``sub-`` is there already.

    Example:
        >>> subject_name("01"), subject_name("sub-01")
        ('sub-01', 'sub-01')
    """
    return f"sub-{label.removeprefix('sub-')}"


def session_name(label: str | None) -> str | None:
    """A session as all tables write it: ``ses-M12``; None where there is none.

    Example:
        >>> session_name("M12"), session_name(None)
        ('ses-M12', None)
    """
    return f"ses-{label.removeprefix('ses-')}" if label else None
