"""The Dice that publications state beside the Dice of a benchmark, and how far their orders agree.

    python benchmarks/published_order.py OUT

OUT is the folder of ``lesionwise benchmark``. Only rows whose publication states a mean Dice are
compared; a reduced recipe stands for its publication. Prints a Markdown table, best measured first,
and Kendall's tau-b with its two-sided p: 1 for the same order, 0 for none, -1 for the reverse.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from scipy.stats import kendalltau

from lesionwise.run.recipes import find_recipe


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Recipe, published and measured Dice with their ranks, best measured first.

    Args:
        table: of a leaderboard; rows without a Dice are left out.
    """
    rows = []
    for name, measured in zip(table["recipe"], table["dsc"], strict=True):
        published = find_recipe(str(name).removesuffix("-reduced")).reported.get("dsc")
        if published is not None and pd.notna(measured):
            rows.append({"recipe": name, "published": published, "measured": measured})
    found = pd.DataFrame(rows).sort_values("measured", ascending=False, ignore_index=True)
    for side in ("published", "measured"):
        found[f"{side} rank"] = found[side].rank(ascending=False).astype(float)
    return found


def main(output: Path) -> None:
    found = compared(pd.read_csv(output / "leaderboard.tsv", sep="\t"))
    print("| recipe | published Dice | rank | measured Dice | rank |")
    print("| --- | --- | --- | --- | --- |")
    for row in found.to_dict("records"):
        name = row["recipe"].removesuffix("-reduced")
        print(
            f"| `{name}` | {row['published']:.3f} | {row['published rank']:g} "
            f"| {row['measured']:.3f} | {row['measured rank']:g} |"
        )
    agreement = kendalltau(found["published"], found["measured"])
    print(f"\nKendall's tau-b {agreement.statistic:.2f}, p = {agreement.pvalue:.2g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
