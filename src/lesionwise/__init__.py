"""lesionwise: finds, separates, measures and follows multiple-sclerosis lesions on brain MRI.

The public functions are in ``lesionwise.api`` and are imported when they are first used, so
importing the package takes no time. ``__init__.pyi`` names them for editors and type checkers.
"""

import importlib

__version__ = "0.1.0"

__all__ = [
    "benchmark",
    "compare",
    "evaluate",
    "export",
    "model_names",
    "predict",
    "process_cohort",
    "rebuild_pages",
    "recipe_names",
    "search",
    "segment",
    "simulate_patients",
    "split",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # by name, so that layers below may import this package for its version alone
    return getattr(importlib.import_module("lesionwise.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
