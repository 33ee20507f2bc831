"""A program of a few lines stands for any other tool."""

import sys

import numpy as np
import pytest

from lesionwise.methods.external import ExternalMethod
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume

GRID = Grid((4, 5, 6), np.diag([1.0, 2.0, 3.0, 1.0]))
RISES = """
import sys, nibabel, numpy
before, after = (nibabel.load(path) for path in sys.argv[1:3])
rise = after.get_fdata() - before.get_fdata()
nibabel.save(nibabel.Nifti1Image({what}.astype("float32"), {affine}), sys.argv[3])
"""


def pair(rises):
    before = np.full(GRID.shape, 10.0, dtype=np.float32)
    after = before + np.asarray(rises, dtype=np.float32)
    return Study("a", tuple(Visit({"flair": Volume(a, GRID)}) for a in (before, after)))


def program(folder, text):
    path = folder / "a tool.py"
    path.write_text(text)
    return f'"{sys.executable}" "{path}" {{baseline}} {{followup}} {{output}}'


def applied(folder, text, study, **settings):
    method = ExternalMethod(program(folder, text), **settings)
    return method.load(RunContext(folder))(study)


RAMP = np.linspace(0, 1, 120, dtype=np.float32).reshape(GRID.shape)


def test_a_probability_map_is_read_back_on_the_studys_grid(tmp_path):
    text = RISES.format(what="rise", affine="after.affine")
    maps = applied(tmp_path, text, pair(RAMP))
    np.testing.assert_allclose(maps.probability, RAMP, atol=1e-6)
    assert maps.probability.dtype == np.float32
    assert maps.grid.matches(GRID)


def test_a_mask_of_255_becomes_a_probability_of_1(tmp_path):
    text = RISES.format(what="(255 * (rise > 0.5))", affine="after.affine")
    maps = applied(tmp_path, text, pair(RAMP))
    np.testing.assert_array_equal(maps.probability, RAMP > 0.5)


def test_a_result_in_another_axis_order_is_brought_back(tmp_path):
    flip = "after.affine @ numpy.array([[-1,0,0,3],[0,1,0,0],[0,0,1,0],[0,0,0,1]])"
    text = RISES.format(what="rise[::-1]", affine=flip)
    maps = applied(tmp_path, text, pair(RAMP))
    np.testing.assert_allclose(maps.probability, RAMP, atol=1e-6)


def test_a_result_on_another_grid_is_refused(tmp_path):
    text = RISES.format(what="rise[1:]", affine="after.affine")
    with pytest.raises(InputError, match=r"sub-a: what python.* wrote") as caught:
        applied(tmp_path, text, pair(RAMP))
    assert "\n" not in str(caught.value)


def test_the_last_line_on_standard_error_says_why(tmp_path):
    text = "import sys; print('first\\nno license found\\n', file=sys.stderr); sys.exit(3)"
    with pytest.raises(InputError, match=r"ended with status 3: no license found$"):
        applied(tmp_path, text, pair(RAMP))


def test_a_program_that_takes_too_long_is_stopped(tmp_path):
    with pytest.raises(InputError, match=r"took longer than 0\.5 s"):
        applied(tmp_path, "import time; time.sleep(60)", pair(RAMP), timeout_s=0.5)


def test_a_program_that_writes_nothing_is_a_fault(tmp_path):
    with pytest.raises(InputError, match=r"wrote no output\.nii\.gz"):
        applied(tmp_path, "", pair(RAMP))


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    method = ExternalMethod("no-such-tool {flair} {output}")
    with pytest.raises(InputError, match="sub-a: no-such-tool: cannot be started"):
        method.load(RunContext(tmp_path))(pair(RAMP))


def test_a_placeholder_the_study_cannot_fill_is_named(tmp_path):
    method = ExternalMethod("tool {t1w} {output}")
    with pytest.raises(InputError, match=r"sub-a: the command needs \{t1w\}"):
        method.load(RunContext(tmp_path))(pair(RAMP))


def test_a_command_without_an_output_is_refused():
    with pytest.raises(ValueError, match="has to name"):
        ExternalMethod("tool {flair}")


def test_a_study_without_the_scan_is_one_line(tmp_path):
    with pytest.raises(InputError, match="sub-a: no t1w scan"):
        ExternalMethod("tool {output}", scan="t1w").load(RunContext(tmp_path))(pair(RAMP))


def test_nothing_is_learned(tmp_path):
    ExternalMethod("tool {output}").fit(TrainingData([]), RunContext(tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())


def test_no_shell_reads_the_command(tmp_path):
    text = "import sys, pathlib; pathlib.Path(sys.argv[3]).write_text(sys.argv[4])"
    method = ExternalMethod(program(tmp_path, text) + " '$(touch x); `id`'")
    with pytest.raises(InputError):  # the text is no NIfTI file
        method.load(RunContext(tmp_path))(pair(RAMP))
    assert not (tmp_path / "x").exists()
