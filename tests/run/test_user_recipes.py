"""Objects of users' recipe files in processes that are started afresh."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import itemgetter

import pytest
from torch.utils.data import DataLoader

from lesionwise.run.recipes import find_recipe
from lesionwise.run.user_recipes import module_of_file

FILE = """
from dataclasses import dataclass, replace
from lesionwise.run.recipes import find_recipe

@dataclass(frozen=True)
class Doubled:
    length: int

    def __len__(self):
        return self.length

    def __getitem__(self, number):
        return 2 * number

RECIPE = replace(find_recipe("unet-cc"), threshold=0.4)
"""


@pytest.mark.parametrize("folder", ["plain", "my study (é)"])
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_of_a_training_read_samples_of_a_users_class(tmp_path, folder, start):
    path = tmp_path / folder / "mine.py"
    path.parent.mkdir()
    path.write_text(FILE)
    samples = module_of_file(path).Doubled(5)
    batches = DataLoader(samples, batch_size=5, num_workers=1, multiprocessing_context=start)
    assert [batch.tolist() for batch in batches] == [[0, 2, 4, 6, 8]]


def test_two_files_of_one_name_are_two_modules(tmp_path):
    made = []
    for number in (3, 7):
        path = tmp_path / str(number) / "mine.py"
        path.parent.mkdir()
        path.write_text(FILE.replace("2 * number", f"{number} * number"))
        made.append(module_of_file(path).Doubled(2))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert list(pool.map(itemgetter(1), made)) == [3, 7]


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    assert find_recipe(path).threshold == 0.4
    path.write_text(FILE.replace("0.4", "0.25"))
    assert find_recipe(path).threshold == 0.25
