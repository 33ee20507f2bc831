"""What a person sees: one line for a fault, exit status 2, tables, help."""

import gc
import subprocess
import sys
from typing import get_type_hints

import nibabel as nib
import numpy as np
import pytest
import typer
from click.testing import CliRunner

import lesionwise
from lesionwise import cli, printing
from lesionwise.cli import app


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def cube(shape=(16, 16, 16)):
    mask = np.zeros(shape, np.uint8)
    mask[4:8, 4:8, 4:8] = 1
    return mask


def faults(tmp_path):
    """Files that cannot be segmented, and a part of the line that says why."""
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 10, (24, 24, 24)).astype(np.float32)
    good = save(tmp_path / "good.nii.gz", noise)
    yield tmp_path / "missing.nii.gz", "no such file"
    text = tmp_path / "text.nii.gz"
    text.write_bytes(b"hello")
    yield text, "not a NIfTI file"
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(good.read_bytes()[:2000])
    yield cut, "truncated"
    yield save(tmp_path / "four.nii.gz", np.stack([noise, noise], -1)), "one 3D volume is needed"
    yield save(tmp_path / "flat.nii.gz", np.full((24, 24, 24), 7, np.float32)), "every voxel is 7"
    yield save(tmp_path / "zero.nii.gz", np.zeros((24, 24, 24), np.float32)), "every voxel is 0"
    nan = noise.copy()
    nan[0, 0, 0], nan[1, 0, 0] = np.nan, np.inf
    yield save(tmp_path / "nan.nii.gz", nan), "2 of 13824 voxels are NaN or infinite"
    yield good, "no brain found"


def test_each_bad_scan_is_one_line_and_status_2(call, tmp_path):
    for path, why in faults(tmp_path):
        status, out, err = call("segment", path, "-o", tmp_path / "out")
        last = err.strip().splitlines()[-1]
        assert status == 2, path
        assert out == ""
        assert last.startswith("lesionwise: ")
        assert path.name.split(".")[0] in last
        assert why in last
        assert not list((tmp_path / "out").rglob("*.nii.gz")), path


def test_a_model_that_is_not_there_is_one_line(call, tmp_path):
    scan = save(tmp_path / "a.nii.gz", np.ones((8, 8, 8), np.float32))
    status, _, err = call("segment", scan, "-o", tmp_path / "out", "--model", "nothing")
    assert status == 2
    assert "nothing: no such run folder, and no such model" in err


def test_an_unknown_recipe_is_one_line(call, tmp_path):
    status, _, err = call("train", "nonsense", tmp_path, "-o", tmp_path / "run")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "nonsense" in err


def test_split_prints_a_table_and_writes(call, tmp_path):
    path = save(tmp_path / "x_mask.nii.gz", cube())
    status, out, _ = call("split", path, "-o", tmp_path / "out", "--method", "cc")
    assert status == 0
    assert "lesions" in out
    assert (tmp_path / "out" / "x_seg-cc_dseg.nii.gz").exists()


def test_a_batch_with_a_fault_goes_on_and_ends_with_2(call, tmp_path):
    good = save(tmp_path / "good.nii.gz", cube())
    status, out, err = call("split", good, tmp_path / "no.nii.gz", "-o", tmp_path / "out")
    assert status == 2
    assert "good" in out
    assert "no.nii.gz: no such file" in err


def test_evaluate_prints_scores(call, tmp_path):
    path = save(tmp_path / "a_mask.nii.gz", cube())
    status, out, _ = call("evaluate", path, path)
    assert status == 0
    assert "dsc" in out
    assert "connected components" in out


def test_version_and_recipes(call):
    assert call("--version")[1].strip() == lesionwise.__version__
    out = call("recipes")[1]
    assert {line.split()[0] for line in out.splitlines()} >= {"conflunet", "unet-cc", "unet-acls"}
    shown = call("recipes", "conflunet")[1]
    assert "cite: Maxence Wynen, Maxime Istasse" in shown
    assert "passage" not in shown
    assert "departure:" in shown


@pytest.mark.parametrize("name", [None, *sorted(typer.main.get_command(app).commands)])
def test_help_at_80_columns_cuts_no_option_and_no_sentence(name):
    command = typer.main.get_command(app)
    shown = command if name is None else command.commands[name]
    words = CliRunner().invoke(command, [*([name] if name else []), "--help"], terminal_width=80)
    said = words.output.split()
    for parameter in shown.params:
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option.startswith("-"):
                assert option in {word.rstrip(",") for word in said}
    assert "..." not in words.output.partition("Commands:")[2]


def test_help_needs_no_torch():
    code = (
        "import sys; sys.argv = ['lesionwise', '--help']\n"
        "from lesionwise.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "bad.nii.gz", "worse.nii.gz"),
        ("evaluate", "bad.nii.gz", "worse.nii.gz"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_bad_input_leaves_no_folder_behind(call, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    for name in ("bad.nii.gz", "worse.nii.gz"):
        (tmp_path / name).write_bytes(b"no image")
    status, _, said = call(*arguments, "-o", "results/here")
    assert status == 2
    assert "bad.nii.gz" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.nii.gz", "worse.nii.gz"]


@pytest.mark.parametrize(
    "arguments", [("segment",), ("predict", "conflunet"), ("split",)], ids=lambda each: each[0]
)
def test_the_first_scan_of_a_folder_is_listed_where_it_fails(
    call, tmp_path, monkeypatch, arguments
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    status, _, said = call(*arguments, "bad.nii.gz", "-o", "results")
    assert status == 2
    assert "bad.nii.gz" in said
    listed = (tmp_path / "results" / "failures.tsv").read_text().splitlines()
    assert listed[0] == "file\terror"
    assert listed[1].startswith("bad.nii.gz\tbad.nii.gz: ")


@pytest.mark.parametrize("spacing", ["--spacing 1,1,3", "--spacing=1,1,3", "--spacing 1 1 3"])
def test_voxel_sizes_are_given_with_commas_or_blanks(call, tmp_path, monkeypatch, spacing):
    taken = []
    monkeypatch.setattr(
        "lesionwise.run.simulate.simulate", lambda *arguments, **named: taken.append(named)
    )
    status, _, said = call("simulate", *spacing.split(), "-o", str(tmp_path / "out"))
    assert status == 0, said
    assert taken[0]["spacing_mm"] == (1, 1, 3)


def test_no_file_is_refused_by_the_command_line_itself():
    # a file that may not be read is one of many: it is listed, and the others continue
    stated = [
        about
        for command in app.registered_commands
        for declared in get_type_hints(command.callback, include_extras=True).values()
        if "Path" in str(declared)
        for about in getattr(declared, "__metadata__", ())
    ]
    assert len(stated) > 20
    assert not any(about.readable or about.exists for about in stated)


def test_garbage_is_collected_once_work_begins(monkeypatch):
    monkeypatch.setattr(printing.options, "quiet", True)
    gc.disable()
    try:
        with cli.at_work():
            assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
