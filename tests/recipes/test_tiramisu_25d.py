"""B15 against its document (002, lines 1814 to 1943)."""

from lesionwise.learning.intensity_transforms import (
    AIR_Z_SCORE,
    AllOf,
    Blur,
    Contrast,
    Noise,
    Sharpen,
    Shift,
)
from lesionwise.learning.losses import SquaredError
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.plane_affine import AspectRatio, Rotate, Transpose, Zoom
from lesionwise.learning.samplers import SlicesWithLesion
from lesionwise.learning.schedules import LinearDecay, TrainingProgress
from lesionwise.learning.slice_effects import (
    DownsampleSlices,
    EachSlice,
    Exposure,
    LinearGradient,
    LocalContrast,
    RadialGradient,
)
from lesionwise.methods.composite import Ensemble, PositiveCases
from lesionwise.networks.fc_densenet import DenseBlock
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("tiramisu-25d")
MEMBERS = RECIPE.method.method.methods
FIRST = MEMBERS[0]


def test_the_challenges_preprocessing_comes_first():
    # 002:1858-1862: brain extraction at each time point, union of the masks, bias correction
    wanted = [ExtractBrain, SharedBrain, MaskToBrain, N4]
    assert [type(step) for step in RECIPE.preprocess if type(step) in wanted] == wanted
    assert SharedBrain("union") in RECIPE.preprocess


def test_stacks_of_all_planes_have_a_lesion_in_the_center_slice():
    # 002:1865-1873; 1917: training size 128x128
    samples = FIRST.samples
    assert isinstance(samples.sampling, SlicesWithLesion)
    assert samples.planes == (0, 1, 2)
    assert samples.size_vox == (128, 128, 3)
    assert samples.size_vox[2] * 2 == FIRST.network.keywords["in_channels"]
    assert isinstance(RECIPE.method, PositiveCases)


def test_the_network_has_five_dense_blocks_on_either_side_and_a_tanh():
    # 002:1876-1887
    network = FIRST.network()
    body = network[0].network
    assert len(body.down) == len(body.up) == 5
    assert sum(isinstance(m, DenseBlock) for m in network.modules()) == 11
    assert type(network[-1]).__name__ == "Tanh"
    assert FIRST.objective.loss == SquaredError(values=(-1.0, 1.0))


def test_image_quality_is_changed_as_often_as_stated():
    # 002:1901-1903: blur 0.2, down-sample 0.1, sharpen 0.2, noise 0.2
    blur, down, sharpen, noise = FIRST.samples.augmentation.intensity.effects[:4]
    assert [type(e) for e in (blur, down, sharpen, noise)] == [
        EachSlice,
        DownsampleSlices,
        EachSlice,
        AllOf,
    ]
    assert [type(e) for e in noise.effects] == [Shift, Noise]
    assert [type(e.effect) for e in (blur, sharpen)] == [Blur, Sharpen]
    assert [e.probability for e in (blur, down, sharpen, noise)] == [0.2, 0.1, 0.2, 0.2]


def test_intensities_are_changed_as_often_as_stated():
    # 002:1905-1909: CLAHE, brightness and contrast, radial and linear gradients, 0.2 each
    effects = FIRST.samples.augmentation.intensity.effects[4:]
    assert [type(e) for e in effects] == [LocalContrast, AllOf, RadialGradient, LinearGradient]
    assert [e.probability for e in effects] == [0.2] * 4


def test_strengths_are_those_of_the_authors_code():
    # MedICL-VU/LesionSegDG, data/ms_dataset.py; its unit is the scan's main peak
    peak = -AIR_Z_SCORE
    _, down, _, noise, clahe, both, radial, linear = FIRST.samples.augmentation.intensity.effects
    assert down.factor == (1.0, 2.0)  # scale 0.5 to 1
    shift, gaussian = noise.effects
    assert (shift.shift, gaussian.std) == ((0.0, 0.1 * peak), (0.0, 0.2 * peak))
    assert (shift.relative, gaussian.relative) == (False, False)
    assert [256 * limit for limit in clahe.clip_limit] == [1, 4]
    assert both.effects == (Exposure((0.65, 1.35), zero=AIR_Z_SCORE), Contrast((0.65, 1.35)))
    assert radial.change == linear.change == (0.0, 0.3)
    assert FIRST.samples.augmentation.spatial.affine.parts[2].factor == (1 / 1.5, 1.5)


def test_geometry_is_changed_as_often_as_stated():
    # 002:1911-1918: ratio in [0.5, 2] with 0.2, reshaped with 0.8; angle 1 to 45 with 0.3;
    # distortion, scale, flip and transpose with 0.3
    spatial = FIRST.samples.augmentation.spatial
    ratio, turn, scale, transpose = spatial.affine.parts
    assert (type(ratio), ratio.ratio) == (AspectRatio, (0.5, 2.0))
    assert ratio.probability == 0.2 * 0.8
    assert (type(turn), turn.angle_deg, turn.probability) == (Rotate, (1.0, 45.0), 0.3)
    assert (type(scale), scale.probability) == (Zoom, 0.3)
    assert (type(transpose), transpose.probability) == (Transpose, 0.3)
    assert (spatial.flip, spatial.elastic.probability) == (0.3, 0.3)
    assert (spatial.flip_axes, spatial.fixed_axes) == ((0, 1), (2,))


def test_adam_keeps_its_rate_for_100_epochs_and_falls_to_0_in_300():
    # 002:1922-1924
    optimization = FIRST.optimization
    assert isinstance(optimization.optimizer, Adam)
    assert optimization.optimizer.betas[0] == 0.5
    assert optimization.learning_rate == 0.0002
    assert optimization.schedule == LinearDecay(constant_epochs=100)
    assert optimization.epochs == 400

    def rate(epoch):
        return optimization.rate(TrainingProgress(epoch / 400, 400))

    assert rate(0) == rate(100) == 0.0002
    assert abs(rate(250) - 0.0001) < 1e-12
    assert rate(400) == 0


def test_the_weights_of_the_best_dice_and_f1_of_every_tenth_epoch_are_taken():
    # 002:1925-1926
    assert FIRST.selection.by == ("dsc", "lesion_f1")
    assert FIRST.selection.every == 10


def test_five_folds_of_several_settings_are_joined():
    # 002:1924-1929: five folds; settings with and without augmentation and of other sizes
    ensemble = RECIPE.method.method
    assert isinstance(ensemble, Ensemble)
    assert (ensemble.folds, ensemble.combine, len(MEMBERS)) == (5, "mean", 15)
    settings = list(dict.fromkeys(MEMBERS))
    assert len(settings) == 3
    assert settings[1].samples.augmentation.intensity is None
    assert settings[2].samples.size_vox != settings[0].samples.size_vox
    for setting in settings:  # each on every fold
        assert {n % 5 for n, member in enumerate(MEMBERS) if member == setting} == set(range(5))
