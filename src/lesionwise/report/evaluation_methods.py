"""How an evaluation was made, in sentences that a paper can quote, with references."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import lesionwise
from lesionwise.metrics.evaluation import Evaluation
from lesionwise.metrics.statistics import RESAMPLES
from lesionwise.metrics.surface import AVERAGE_DEFINITIONS, HAUSDORFF_DEFINITIONS
from lesionwise.report.render import asset

PACKAGES = ("numpy", "scipy", "statsmodels", "connected-components-3d")
"""Packages whose versions decide the numbers."""

REFERENCES: Mapping[str, str] = json.loads(asset("references.json"))
"""Full references by the words that the text cites them with."""

MATCHINGS = {
    "greedy": "each predicted lesion was assigned to the reference lesion with the highest "
    "intersection over union (IoU), and a reference lesion with several kept the best one",
    "greedy_pairs": "pairs of lesions were formed in decreasing order of intersection over union "
    "(IoU), with each lesion in at most one pair",
    "optimal": "lesions were paired one to one so that the sum of intersections over union (IoU) "
    "was maximal",
}


@dataclass(frozen=True)
class MethodsText:
    """Paragraphs to quote, and the references that they cite, in alphabetical order."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]

    def plain(self) -> str:
        """As it stands in ``methods.txt``."""
        return "\n\n".join([*self.paragraphs, "References", *self.references]) + "\n"


def methods_text(evaluation: Evaluation) -> MethodsText:
    """Describe how the numbers of an evaluation came about, for the methods section of a paper.

    Only what was done is described: size limits, comparisons, raters, slices and sessions are
    named where there are any.
    """
    parts = [_cases(evaluation), _lesions(evaluation), _statistics(evaluation)]
    text = " ".join(parts)
    cited = tuple(full for words, full in REFERENCES.items() if words in text)
    return MethodsText(tuple(parts), cited)


def _cases(evaluation: Evaluation) -> str:
    cases = {case.case for case in evaluation.cases}
    patients = {case.patient or case.case for case in evaluation.cases}
    methods = list(evaluation.predictions)
    of = f" of {_count(len(patients), 'patient')}" if len(patients) < len(cases) else ""
    tools = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    text = (
        f"Segmentations of {_count(len(cases), 'case')}{of} by {_count(len(methods), 'method')} "
        f"({', '.join(methods)}) were compared with the reference using lesionwise "
        f"{lesionwise.__version__} (Python {platform.python_version()}, {tools}; Virtanen et al. "
        "2020, Seabold and Perktold 2010)."
    )
    raters = len(evaluation.reference)
    if raters > 1:
        how = next(case.reference_kind for case in evaluation.cases).partition(" of ")[0]
        consensus = "by STAPLE (Warfield et al. 2004)" if how == "staple" else "by majority vote"
        text += (
            f" The reference is the consensus of {raters} raters {consensus}; their agreement is "
            "given as Cohen's kappa (Cohen 1960) for each pair and Fleiss' kappa (Fleiss 1971)."
        )
    if evaluation.failures:
        text += f" {_count(len(evaluation.failures), 'case')} could not be scored."
    return text


def _lesions(evaluation: Evaluation) -> str:
    made = evaluation.options
    kinds = {kind for found in evaluation.read_as.values() for kind in found}
    sources = []
    if kinds - {"instances"}:
        sources.append(f"the {made.connectivity}-connected components of the masks")
    if "instances" in kinds:
        sources.append("the labels of the instance maps")
    size = ""
    if made.size_filter == "both sides":
        size = (
            f" Lesions below {made.min_volume_mm3:g} mm³ or shorter than {made.min_extent_mm:g} mm "
            "along a voxel axis were left out on both sides."
        )
    hit = "above" if made.comparison == ">" else "of at least"
    empty = (
        " Where neither side had a lesion, ratios count as perfect agreement."
        if made.empty == "agreement"
        else ""
    )
    return (
        f"Lesions are {' or '.join(sources)}.{size} For lesion-wise scores, "
        f"{MATCHINGS[made.matching]}; pairs with an IoU {hit} {made.iou_threshold:g} count as "
        "found. Reported are the Dice coefficient of the masks (Dice 1945), lesion-wise precision, "
        "sensitivity and F1, panoptic quality (Kirillov et al. 2019), the 95th percentile "
        f"Hausdorff distance ({HAUSDORFF_DEFINITIONS[made.hd95]}), the average symmetric surface "
        f"distance ({AVERAGE_DEFINITIONS[made.assd]}), the surface Dice at a tolerance of "
        f"{made.surface_tolerance_mm:g} mm (Nikolov et al. 2021) and the lesion scores of the "
        f"MSSEG evaluator (Commowick et al. 2018).{empty} Undefined values "
        "were left out and counted."
    )


def _statistics(evaluation: Evaluation) -> str:
    whose = "patients" if evaluation.clustered else "cases"
    several = len({case.case for case in evaluation.cases}) > 1
    text = "Values are from a single case."
    if several:
        text = (
            f"Values are means ± standard deviations over {whose}, with 95 % intervals from the "
            f"bias-corrected and accelerated bootstrap (Efron 1987; {RESAMPLES} resamples, seed "
            f"{evaluation.seed})."
        )
    if evaluation.clustered:
        text += (
            " Sessions of a patient were averaged first, so that all intervals and tests are "
            "based on patients."
        )
    if evaluation.comparisons:
        text += (
            " Methods were compared by the Wilcoxon signed-rank test (Wilcoxon 1945) on the "
            f"{whose} for which both had scores, with zero differences as in Pratt 1959 and "
            "Holm's correction within each metric (Holm 1979)."
        )
    if evaluation.ranks:
        text += (
            " Mean ranks were compared by the Friedman test with Nemenyi's critical difference "
            "(Demšar 2006)."
        )
    if several:
        text += " Counts and volumes were compared by limits of agreement (Bland and Altman 1986"
        text += (
            "; between and within patients, Bland and Altman 2007)."
            if evaluation.clustered
            else ")."
        )
    if evaluation.slice_tables or any(found.n for found in evaluation.detection.values()):
        text += " Intervals of proportions are Wilson's (Wilson 1927)."
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
