"""A 2D U-Net on axial slices of the subtraction of two visits."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EverySlice
from lesionwise.learning.samples import ListedPatches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.networks.unet_2d import plane_unet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.filters import AnisotropicDiffusion
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4, ZScoreSlices
from lesionwise.preprocess.pair_maps import Subtract
from lesionwise.preprocess.slices import ResizeSlices
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on CNNNewLesion, a 2D U-Net for subtraction images]"),
    passage="002, line 2950, section 2",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToHalfway(),
        SharedBrain("union"),
        MaskToBrain(),
        N4(),
        Resample(1.0, order=3),
        AnisotropicDiffusion(),
        MaskToBrain(),  # what resampling and diffusion left outside
        ZScoreSlices(axis=2),
        ResizeSlices((256, 256)),
        Subtract("flair", name="subtraction"),
    ),
    method=NetworkMethod(
        network=partial(plane_unet, in_channels=1, out_channels=2, up_kernel=3),
        scans=("subtraction@followup",),
        samples=ListedPatches(EverySlice(normals=(2,)), size_vox=(256, 256, 1), batch_size=32),
        objective=Supervised(LesionMask(), CrossEntropy()),
        optimization=Optimization(
            learning_rate=1e-3, epochs=60, optimizer=Adam(), schedule=Constant()
        ),
        task="new",
        inference=Inference(SlidingWindow(windows_per_batch=16)),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The paper uses Anima for brain extraction and bias correction. We use our own "
            "implementations, and run N4 on a copy with 4 mm voxels."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        (
            "Settings of the diffusion are not stated. We use SimpleITK's defaults with a "
            "conductance of 1, and the largest time step that is stable for the voxel size."
        ),
        (
            "The paper extracts the brain of each visit. We use the union of both masks, and mask "
            "once more after the diffusion, so that slices without brain stay empty."
        ),
        (
            "Whether a slice's mean and standard deviation use only the brain is not stated. We "
            "use all its voxels, as printed."
        ),
        (
            "The U-Net is adapted from Ghosal et al. (2019), but its channels and depth are not "
            "stated. We use those of Ronneberger et al., 64 to 1024. The paper crops feature maps "
            "before it joins them. We pad convolutions, so that they fit uncropped."
        ),
        "The learning rate schedule is not stated. We use a constant rate.",
        "The paper returns its masks on voxels of 1 mm. We return them on the follow-up's grid.",
        "Which weights are used is not stated. We use those with the highest validation Dice.",
        (
            "Initial weights are not stated. We use those of Ronneberger et al., and a bias with "
            "which training starts at a lesion probability of 0.02 everywhere."
        ),
        "The threshold is not stated. We use 0.5.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64, 128)},
        learning_rate=2e-3,
        batch_size=8,
        window=SlidingWindow(windows_per_batch=16, engine="openvino"),
    ),
)
