import json

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

from boxes import SMALL, study

from lesionwise.methods.nnunet import arrays, plan
from lesionwise.methods.nnunet.cases import Case, case_of
from lesionwise.methods.nnunet.settings import Plans
from lesionwise.methods.nnunet.workspace import Workspace
from lesionwise.types import InputError, no_progress


def case(seed, visits=1):
    task = "new" if visits == 2 else "lesions"
    return case_of(study(seed, visits), ("flair",), task, True, False)


def planned(folder, plans, configuration="3d_fullres", regions=False):
    space = Workspace(folder)
    with space.in_use():
        plan.write_raw(space, [case(0), case(1)], [case(2)], ["flair"], regions)
        plan.make_plans(space, plans, configuration, no_progress)
        made = arrays.preprocess(space, configuration, True, no_progress)
    return space, made


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    told = Plans(
        first_axis="i", spacing_mm=(3.0, 1.2, 1.0), patch_size_vox=(8, 16, 24),
        base_features=4, dropout=0.2,
    )  # fmt: skip
    return planned(tmp_path_factory.mktemp("small"), told)


def test_raw_data_set_is_what_nnunet_reads(small):
    space, _ = small
    described = json.loads((space.raw / "dataset.json").read_text())
    assert described["numTraining"] == 2
    assert described["labels"] == {"background": 0, "lesion": 1}
    assert plan.case_names(space) == {"train": ["train_0000", "train_0001"], "val": ["val_0000"]}
    assert len(list((space.raw / "imagesTr").iterdir())) == 3


def test_plans_take_patch_spacing_and_dropout_in_nnunets_order(small):
    _, made = small
    settings = made["configurations"]["3d_fullres"]
    assert made["transpose_forward"] == [2, 0, 1]
    assert settings["patch_size"] == [8, 16, 24]
    assert settings["spacing"] == [3.0, 1.2, 1.0]
    arguments = settings["architecture"]["arch_kwargs"]
    assert arguments["dropout_op"] == "torch.nn.Dropout3d"
    assert arguments["dropout_op_kwargs"] == {"p": 0.2}
    assert arguments["features_per_stage"][0] == 4


def test_arrays_keep_every_instance_after_resampling(small):
    space, made = small
    folder = space.preprocessed / made["configurations"]["3d_fullres"]["data_identifier"]
    labels = np.load(folder / "train_0000_seg.npy")
    assert labels.min() == -1  # outside of the brain
    original = case(0).labels
    assert set(np.unique(labels)) - {-1, 0} == set(np.unique(original)) - {0}
    # along i, k, j: 28 voxels of 1.5 mm become about 14 of 3 mm, less what is cropped
    assert labels.shape[1] < 15


def test_where_lesions_are_is_known_to_the_loader(small):
    space, made = small
    folder = space.preprocessed / made["configurations"]["3d_fullres"]["data_identifier"]
    data, labels, _, properties = arrays.NumpyDataset(str(folder)).load_case("train_0001")
    where = properties["class_locations"][1]
    assert len(where)
    assert (labels[tuple(where.T)] > 0).all()
    assert data.shape == labels.shape


def test_2d_slices_lie_along_the_axis_that_is_named(tmp_path):
    told = Plans(first_axis="j", patch_size_vox=(16, 16), base_features=4, batch_size=3)
    _, made = planned(tmp_path, told, "2d", regions=True)
    assert made["transpose_forward"] == [1, 0, 2]
    assert made["configurations"]["2d"]["patch_size"] == [16, 16]
    assert made["configurations"]["2d"]["batch_size"] == 3
    assert made["configurations"]["2d"]["spacing"] == [2.0, 1.5]


def test_a_patch_the_network_cannot_halve_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"patch_size_vox \(17, 16, 16\)"):
        planned(tmp_path, Plans(patch_size_vox=(17, 16, 16), base_features=4))


def test_nothing_to_learn_from_is_one_line(tmp_path):
    space = Workspace(tmp_path)
    empty = case(0)
    empty.labels[:] = 0
    with pytest.raises(InputError, match="no training case shows a lesion"):
        plan.write_raw(space, [empty], [], ["flair"], False)
    with pytest.raises(InputError, match="no training case is left"):
        plan.write_raw(space, [], [case(0)], ["flair"], False)


def test_instances_are_carried_to_the_nearest_labelled_voxel():
    instances = np.zeros((4, 4, 1), np.int16)
    instances[0, 0], instances[3, 3] = 7, 9
    mask = np.zeros((8, 8, 2), np.int8)
    mask[0:3, 0:3] = 1
    mask[6:8, 6:8] = 1
    mask[0, 7] = -1
    carried = arrays.carry_instances(instances, mask)
    assert set(np.unique(carried[0:3, 0:3])) == {7}
    assert set(np.unique(carried[6:8, 6:8])) == {9}
    assert (carried[0, 7] == -1).all()
    assert carried[4, 4, 0] == 0


def test_small_settings_are_taken(tmp_path):
    _, made = planned(tmp_path, SMALL)
    assert made["configurations"]["3d_fullres"]["batch_size"] == 2


@pytest.mark.parametrize(("margin_vox", "within"), [(0, False), (8, True)])
def test_z_scores_are_the_brains_where_nnunet_crops_a_quarter_away(tmp_path, margin_vox, within):
    brain = np.zeros((20, 22, 24), bool)
    brain[np.ix_(*[range(1, n - 1) for n in brain.shape])] = True
    brain = np.pad(brain, margin_vox)
    image = np.where(brain, np.random.default_rng(0).normal(100, 5, brain.shape), 0)
    labels = np.zeros(brain.shape, np.int32)
    labels[12:15, 12:15, 12:15] = 1
    one = Case(image[None].astype(np.float32), labels, (1.0, 1.0, 1.0))
    space = Workspace(tmp_path)
    with space.in_use():
        plan.write_raw(space, [one], [], ["flair"], False)
        plan.make_plans(space, Plans(base_features=4), "3d_fullres", no_progress)
        made = arrays.preprocess(space, "3d_fullres", True, no_progress)
    assert made["configurations"]["3d_fullres"]["use_mask_for_norm"] == [within]
