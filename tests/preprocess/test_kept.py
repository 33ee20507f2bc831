"""Results that are kept in a folder: computed once, found by all that they depend on."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest

from lesionwise.preprocess.bet import bet_mask
from lesionwise.preprocess.brain_masks import BetBrain
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.filters import Denoise
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.kept import VARIABLE, kept, results_kept, saved_s
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.types import Grid, InputError, Study, Visit, Volume


class Counter:
    def __init__(self, result):
        self.result, self.calls = result, 0

    def __call__(self):
        self.calls += 1
        return (np.asarray(self.result),)


@pytest.fixture
def folder(tmp_path):
    with results_kept(tmp_path):
        yield tmp_path


def test_a_result_is_computed_once_and_comes_back_to_the_bit(folder):
    result = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    compute = Counter(result)
    for _ in range(3):
        (found,) = kept("a", (1, "x"), compute)
        np.testing.assert_array_equal(found, result)
        assert found.dtype == result.dtype
    assert compute.calls == 1


GRID = Grid((2, 2, 2), np.eye(4))
SCAN = Volume(np.arange(8.0).reshape(2, 2, 2), GRID)


@pytest.mark.parametrize(
    "others",
    [
        [(1,), (1.0,), (True,), ("1",), (None,), ((1,),), (1, 1)],
        [(("a", "b"),), (("ab",),), (("a",), "b"), ("a", "b")],
        [
            (SCAN,),
            (Volume(SCAN.array + 1e-9, GRID),),
            (Volume(SCAN.array.astype(np.float32), GRID),),
            (Volume(SCAN.array, Grid((2, 2, 2), np.diag([1.0, 1.0, 1.1, 1.0]))),),
            (SCAN.array,),
            (SCAN.array.ravel(),),
        ],
    ],
)
def test_other_inputs_have_other_results(folder, others):
    for number, inputs in enumerate(others):
        assert kept("a", inputs, Counter(number))[0] == number
    for number, inputs in enumerate(others):
        assert kept("a", inputs, Counter(-1))[0] == number


def test_the_order_of_an_array_in_memory_does_not_matter(folder):
    array = np.arange(6.0).reshape(2, 3)
    kept("a", (array,), Counter(1))
    assert kept("a", (np.asfortranarray(array),), Counter(2))[0] == 1


def test_two_computations_do_not_share_results(folder):
    kept("a", (1,), Counter(1))
    assert kept("b", (1,), Counter(2))[0] == 2


def test_without_a_folder_all_is_computed():
    compute = Counter(1)
    kept("a", (object(),), compute)  # the inputs are not even looked at
    kept("a", (object(),), compute)
    assert compute.calls == 2


def test_an_unknown_input_is_refused(folder):
    with pytest.raises(TypeError, match="object"):
        kept("a", (object(),), Counter(1))


def test_an_error_is_not_kept(folder):
    def fail():
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        kept("a", (1,), fail)
    assert kept("a", (1,), Counter(5))[0] == 5


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_file_is_made_anew(folder, content):
    kept("a", (1,), Counter(np.arange(1000)))
    (path,) = folder.glob("a-*.npz")
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    assert kept("a", (1,), Counter(7))[0] == 7
    assert kept("a", (1,), Counter(8))[0] == 7


@pytest.mark.parametrize("at", [60, 300, 900])
def test_a_file_with_changed_bytes_is_made_anew(folder, at):
    kept("a", (1,), Counter(np.random.default_rng(0).integers(0, 9, 5000)))
    (path,) = folder.glob("a-*.npz")
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    assert kept("a", (1,), Counter(7))[0].tolist() == 7


def test_an_archive_without_arrays_is_made_anew(folder):
    kept("a", (1,), Counter(0))
    (path,) = folder.glob("a-*.npz")
    with path.open("wb") as file:
        np.savez(file)
    assert kept("a", (1,), Counter(7))[0] == 7


def test_a_folder_that_takes_no_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with results_kept(tmp_path / "file"), pytest.raises(InputError, match="cannot be written"):
        kept("a", (1,), Counter(1))


def test_a_pickle_is_not_loaded(folder):
    kept("a", (1,), Counter(0))
    (path,) = folder.glob("a-*.npz")
    with path.open("wb") as file:
        np.savez(file, np.array([{"an": "object"}], dtype=object), np.array(1.0))
    assert kept("a", (1,), Counter(7))[0] == 7


def test_another_process_finds_the_folder(folder):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(eval, f"__import__('os').environ['{VARIABLE}']").result() == str(folder)


def test_the_seconds_that_were_saved_are_known(folder):
    import time

    def slow():
        time.sleep(0.3)
        return (np.array(1),)

    before = saved_s()
    kept("a", (1,), slow)
    assert saved_s() == before
    kept("a", (1,), slow)
    assert 0.1 < saved_s() - before < 0.5


def head(seed):
    """A bright ellipsoid of noise and blobs in the dark."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices((30, 34, 26)) - np.array([14.5, 16.5, 12.5])[:, None, None, None]
    inside = (i / 12) ** 2 + (j / 14) ** 2 + (k / 10) ** 2 < 1
    texture = 100 + 10 * np.sin(i / 3) + 10 * np.cos(j / 4) + 8 * np.sin(k / 2)
    array = np.where(inside, texture + rng.normal(0, 3, inside.shape), 2 + rng.random(inside.shape))
    grid = Grid(inside.shape, np.diag([4.0, 4.0, 4.0, 1.0]))
    return Visit({"flair": Volume(array.astype(np.float32), grid)}, brain=Volume(inside, grid))


@pytest.fixture(scope="module")
def study():
    return Study("01", (head(0), head(1)))


STEPS = [
    RegisterToFirst(),
    N4(),
    Denoise(),
    DeformToLast(method="bspline", working_mm=8.0, iterations=(3,)),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_a_step_gives_the_same_to_the_bit_with_kept_results(study, step, tmp_path):
    plain = step(study)
    with results_kept(tmp_path):
        first = step(study)
        files = sorted(tmp_path.iterdir())
        second = step(study)
    assert files
    assert sorted(tmp_path.iterdir()) == files  # nothing was computed again
    for found in (first, second):
        for visit, expected in zip(found.visits, plain.visits, strict=True):
            np.testing.assert_array_equal(visit.scans["flair"].array, expected.scans["flair"].array)
            np.testing.assert_array_equal(visit.to_native, expected.to_native)


def test_another_setting_of_a_step_is_another_result(study, tmp_path):
    with results_kept(tmp_path):
        found = [N4(levels=levels)(study).visits[0].scans["flair"].array for levels in (1, 3)]
    assert not np.array_equal(*found)


def test_a_brain_mask_is_kept(study, tmp_path):
    bare = replace(study, visits=(replace(study.visits[0], brain=None),))
    scan = bare.visits[0].scans["flair"]
    with results_kept(tmp_path):
        found = [BetBrain(working_mm=4.0)(bare).visits[0].brain.array for _ in range(2)]
    assert len(list(tmp_path.glob("bet-*.npz"))) == 1
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], bet_mask(scan, on=scan.grid))
