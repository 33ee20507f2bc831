"""B26, "CNNNewLesionFinal", against its document (002, lines 2950 to 3098)."""

from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EverySlice
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.filters import AnisotropicDiffusion
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import N4, ZScoreSlices
from lesionwise.preprocess.pair_maps import Subtract
from lesionwise.preprocess.slices import ResizeSlices
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("subtraction-2d")


def test_the_steps_come_in_the_order_of_the_document():
    # 002:3034-3047: stripped and bias corrected; 1 mm, cubic; diffused; z-score of each slice;
    # 256 by 256; then the subtraction of the two images
    wanted = [
        ExtractBrain,
        N4,
        Resample,
        AnisotropicDiffusion,
        ZScoreSlices,
        ResizeSlices,
        Subtract,
    ]
    steps = [step for step in RECIPE.preprocess if type(step) in wanted]
    assert [type(step) for step in steps] == wanted
    assert (steps[2].spacing_mm, steps[2].order) == (1.0, 3)
    assert (steps[4].axis, steps[4].within) == (2, "all")
    assert steps[5].size_vox == (256, 256)


def test_the_network_sees_slices_of_the_difference_alone():
    method = RECIPE.method
    assert method.scans == ("subtraction@followup",)
    assert method.samples.positions == EverySlice(normals=(2,))
    assert method.samples.size_vox == (256, 256, 1)
    assert method.network.keywords["in_channels"] == 1
    # 002:3066: "deconvolution in the up-layer from expanding path, 3 x 3 kernels were used"
    assert method.network.keywords["up_kernel"] == 3


def test_slices_without_brain_are_empty_again_after_the_diffusion():
    types = [type(step) for step in RECIPE.preprocess]
    diffused = types.index(AnisotropicDiffusion)
    assert types[diffused + 1 : diffused + 3] == [MaskToBrain, ZScoreSlices]


def test_it_is_trained_as_the_document_says():
    # 002:3070-3073: batches of 32, Adam at 0.001, cross-entropy, 60 epochs
    method = RECIPE.method
    assert method.samples.batch_size == 32
    assert isinstance(method.optimization.optimizer, Adam)
    assert method.optimization.learning_rate == 0.001
    assert method.objective.loss == CrossEntropy()
    assert method.optimization.epochs == 60
    assert RECIPE.task == "new"
