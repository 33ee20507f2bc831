"""The way BIDS Apps take their arguments, which differs from that of other commands."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = ("participant", "group")
SEVERAL = ("--participant-label", "--participant_label", "--session-label", "--session_label")
"""Options with any number of labels behind them."""


def one_label_an_option(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--participant-label 01 02`` as that option twice, one label each.

    BIDS Apps take all words up to the next option. Where those end with the analysis level,
    the last three are the data set, the output folder and the level, not labels.
    """
    result: list[str] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        result.append(word)
        if word not in SEVERAL:
            continue
        behind: list[str] = []
        while words and not words[0].startswith("-"):
            behind.append(words.pop(0))
        labels = behind[:-3] if len(behind) > 3 and behind[-1] in LEVELS else behind
        for number, label in enumerate(labels):
            result += [word, label] if number else [label]
        result += behind[len(labels) :]
    return result
