"""The notebook of the guide does what it shows."""

import contextlib
import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "guide" / "first_steps.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def shown(cell):
    """What a cell printed when the notebook was saved."""
    texts = ("".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream")
    return "".join(texts)


def test_every_cell_prints_what_the_notebook_shows():
    matplotlib.use("Agg")
    names = {"__name__": "__main__"}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec("".join(cell["source"]), names)
            assert printed.getvalue() == shown(cell)
    assert len(names["figure"].axes) == 3
    plt.close(names["figure"])


@pytest.mark.parametrize("cell", [c for c in CELLS if c["cell_type"] == "code"])
def test_a_saved_cell_holds_no_error_and_nothing_that_changes_with_a_run(cell):
    assert [o for o in cell["outputs"] if o["output_type"] == "error"] == []
    assert cell["execution_count"] is None
    assert cell["metadata"] == {}
