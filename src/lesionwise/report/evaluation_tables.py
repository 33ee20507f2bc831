"""The files of an evaluation that other programs read: metrics.json and the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lesionwise
from lesionwise.io.files import write_json, write_table, write_text
from lesionwise.metrics.case import KEYS
from lesionwise.metrics.evaluation import Evaluation, summary_row
from lesionwise.metrics.names import NAMES
from lesionwise.metrics.slices import balance, pixel_scores, threshold_curves
from lesionwise.report.evaluation_methods import methods_text

EVALUATION_FILES = (
    "metrics.json", "methods.txt", "cases.tsv", "lesions.tsv", "relations.tsv", "comparison.tsv",
    "raters.tsv", "slices.tsv", "slice_scores.tsv", "failures.tsv", "evaluation.html",
)  # fmt: skip
"""What an evaluation writes into its folder, beside what was asked for."""


FIGURE_FILES = re.compile(
    r"(detection-by-volume|(spread|differences|ranks|agreement|slices)-.+)\.(svg|pdf)"
)
"""Names of the charts that ``report.evaluation`` writes with ``--figures``."""


def clear_figures(folder: Path) -> None:
    """Remove the charts of an earlier evaluation, and the folder if nothing else is in it.

    Example:
        >>> Path("figures").mkdir()
        >>> for name in ("spread-dsc.svg", "my-own.svg"):
        ...     Path("figures", name).touch()
        ...
        >>> clear_figures(Path("figures"))
        >>> [path.name for path in Path("figures").iterdir()]
        ['my-own.svg']
    """
    if not folder.is_dir():
        return
    for file in list(folder.iterdir()):
        if FIGURE_FILES.fullmatch(file.name):
            file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def write_evaluation_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write metrics.json, methods.txt and the tables; a table without rows is left out or removed.

    ``cases.json`` names the columns of ``cases.tsv`` in words, as BIDS tables have it.
    """
    write_json(folder / "metrics.json", as_json(evaluation))
    write_json(folder / "cases.json", {key: {"LongName": name} for key, name in NAMES.items()})
    write_text(folder / "methods.txt", methods_text(evaluation).plain())
    write_table(folder / "cases.tsv", [case.flat() for case in evaluation.cases])
    lesions = evaluation.lesion_rows()
    columns = None if lesions else ["case", "method", "side", "id", "volume_mm3", "state"]
    write_table(folder / "lesions.tsv", lesions, columns)
    write_table(
        folder / "relations.tsv",
        [
            {
                "case": case.case,
                "method": case.method,
                "kind": relation.kind,
                "references": ",".join(map(str, relation.references)),
                "predictions": ",".join(map(str, relation.predictions)),
            }
            for case in evaluation.cases
            for relation in case.result.relations
        ],
        ["case", "method", "kind", "references", "predictions"],
    )
    optional: dict[str, list[dict[str, Any]]] = {
        "comparison.tsv": evaluation.comparison_rows,
        "raters.tsv": [dict(row) for row in evaluation.raters],
        "slices.tsv": list(_slice_rows(evaluation)),
        "slice_scores.tsv": list(_slice_score_rows(evaluation)),
        "failures.tsv": [
            {"name": name, "error": error} for name, error in evaluation.failures.items()
        ],
    }
    for name, rows in optional.items():
        if rows:
            write_table(folder / name, rows)
        else:
            (folder / name).unlink(missing_ok=True)  # of an earlier evaluation


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything an evaluation says, as ``metrics.json`` holds it.

    Each entry of ``cases`` is flat: every metric by key, null where undefined, with the
    reasons under ``undefined``. Where there is one case and one method its numbers also stand
    at the top level. ``cohort`` is keyed by metric where there is one method; ``methods``
    always holds it by method.
    """
    cases = [
        {
            **case.flat(),
            "undefined": dict(case.result.undefined),
            "reference": [path.as_posix() for path in case.reference],
            "prediction": case.prediction.as_posix(),
            "notes": list(case.notes),
        }
        for case in evaluation.cases
    ]
    methods = {
        method: {
            "prediction": path.as_posix(),
            "cases": len(evaluation.of(method)),
            "patients": len(set(evaluation.patients(method))),
            "cohort": {k: summary_row(v) for k, v in evaluation.cohort[method].items()},
            "count_agreement": evaluation.count_agreement[method],
            "volume_agreement_mm3": evaluation.volume_agreement[method],
            "detection_by_volume": asdict(evaluation.detection[method]),
        }
        for method, path in evaluation.predictions.items()
    }
    single = {key: cases[0][key] for key in (*KEYS, "undefined")} if len(cases) == 1 else {}
    only = next(iter(methods.values()))["cohort"] if len(methods) == 1 else None
    return {
        "made_by": "lesionwise evaluate",
        "version": lesionwise.__version__,
        "options": evaluation.options.written(),
        "rules": evaluation.rules,
        "read_as": evaluation.read_as,
        "methods_text": list(methods_text(evaluation).paragraphs),
        "seed": evaluation.seed,
        "reference": [path.as_posix() for path in evaluation.reference],
        **single,
        "cases": cases,
        **({"cohort": only} if only is not None else {}),
        "methods": methods,
        "comparison": evaluation.comparison_rows,
        "ranks": {key: asdict(rank) for key, rank in evaluation.ranks.items()},
        "slices": {
            method: {"scores": asdict(scores), "pixels": pixel_scores(table, evaluation.seed)}
            for (method, scores), table in zip(
                evaluation.slice_scores().items(), evaluation.slice_tables.values(), strict=True
            )
        },
        "raters": list(evaluation.raters),
        "failures": evaluation.failures,
    }


def _slice_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for method, table in evaluation.slice_tables.items():
        taken = balance(table, evaluation.seed)
        drawn = set(zip(taken.case.tolist(), taken.index.tolist(), strict=True))
        for row in range(len(table)):
            name = (str(table.case[row]), int(table.index[row]))
            yield {
                "case": name[0],
                "method": method,
                "slice": name[1],
                "reference_vox": int(table.reference_vox[row]),
                "predicted_vox": int(table.predicted_vox[row]),
                "common_vox": int(table.common_vox[row]),
                "overlap": float(table.overlap[row]) if table.reference_vox[row] else None,
                "hd95_mm": float(table.hd95_mm[row]),
                "drawn": name in drawn,
            }


def _slice_score_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """The curves against the threshold, on all slices and on equal numbers of normal ones."""
    for method, table in evaluation.slice_tables.items():
        for normals, rows in (("equal", balance(table, evaluation.seed)), ("all", table)):
            for scores in threshold_curves(rows):
                line: dict[str, Any] = {"method": method, "normal_slices": normals}
                for name, value in vars(scores).items():
                    if isinstance(value, float | int):
                        line[name] = value
                        continue
                    low, high = value.ci or (None, None)
                    line |= {name: value.value, f"{name}_low": low, f"{name}_high": high}
                yield line
