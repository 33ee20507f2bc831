"""B5 against its document (002, lines 443 to 556)."""

from lesionwise.learning.losses import GeneralizedDice
from lesionwise.learning.positions import EqualClasses, NonzeroPatches, RegularGrid
from lesionwise.methods.composite import Ensemble
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.intensity import N4, DropNegative, ZScore
from lesionwise.preprocess.pair_maps import AttentionMaps
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("sc-unet")
MEMBER = RECIPE.method.methods[0]


def test_the_steps_come_in_the_order_of_the_document():
    # 002:472-483: stripped, bias corrected, Gaussian normalization, negative values removed; then
    # the positive difference times both visits
    wanted = [ExtractBrain, SharedBrain, MaskToBrain, N4, ZScore, DropNegative, AttentionMaps]
    assert [type(step) for step in RECIPE.preprocess if type(step) in wanted] == wanted
    # as the public code of Li et al. does what it calls Gaussian normalization
    assert ZScore(within="brain") in RECIPE.preprocess


def test_patches_are_sagittal_of_four_channels_and_overlap_by_one_half():
    # 002:484-493: 64x64x4, 50 %, equally positive or negative, all in the sagittal plane; 002:476:
    # empty patches removed
    samples = MEMBER.samples
    assert MEMBER.scans == ("flair", "attention")
    assert MEMBER.network.keywords["in_channels"] == 4
    assert samples.size_vox == (64, 64, 1)
    assert samples.positions == RegularGrid(stride_vox=(32, 32, 1), normals=(0,))
    assert samples.balance == EqualClasses()
    assert samples.keeps == NonzeroPatches()
    assert MEMBER.inference.planes.axes == (0,)


def test_affine_transforms_alone_augment_all_channels_alike():
    # 002:493-494; attention maps would not fit scans of other intensities
    augmentation = MEMBER.samples.augmentation
    assert augmentation.intensity is None
    assert augmentation.lesion_contrast.probability == 0
    assert augmentation.spatial.affine.probability == 1
    assert (augmentation.spatial.flip, augmentation.spatial.elastic) == (0.0, None)


def test_five_networks_are_averaged_and_cut_at_one_half():
    # 002:496-509: five randomly initialized, generalized Dice; probability maps averaged; 0.5
    assert isinstance(RECIPE.method, Ensemble)
    assert len(RECIPE.method.methods) == 5
    assert (RECIPE.method.combine, RECIPE.method.folds) == ("mean", 0)
    assert all(member == MEMBER for member in RECIPE.method.methods)
    assert MEMBER.objective.loss == GeneralizedDice()
    assert RECIPE.threshold == 0.5
    assert (RECIPE.task, MEMBER.task) == ("new", "new")


def test_the_reported_means_are_those_of_table_1():
    # 002:533-546
    assert RECIPE.reported == {
        "dsc": 0.728,
        "voxel_ppv": 0.816,
        "voxel_sensitivity": 0.666,
        "lesion_recall": 0.889,
        "lesion_f1": 0.691,
    }
