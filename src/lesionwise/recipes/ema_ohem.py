"""Hard patches, chosen by a slow copy of the network, are learned from."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import Dice, SquaredError
from lesionwise.learning.objective import HardExamples, Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import MomentumCopy
from lesionwise.learning.schedules import Piecewise
from lesionwise.learning.stratified import StratifiedPatches
from lesionwise.learning.targets import SoftMasks
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.networks.mined_unet import MinedUNet
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on hard example mining with a moving average of the network]"
    ),
    passage="002, line 2613, sections 2 and 3",
    scans=("flair",),
    preprocess=(RegisterToHalfway(), Resample(0.5), ZScore(within="all")),
    method=NetworkMethod(
        network=partial(MinedUNet, in_channels=2, out_channels=1, features=(16, 32, 64)),
        scans=("flair",),
        samples=StratifiedPatches(
            size_vox=(32, 32, 32),
            batch_size=128,
            per_epoch=12_800,  # 100 steps, 30 000 in all
            lesion_fraction=0.3,
        ),
        objective=HardExamples(
            Supervised(SoftMasks(), Dice(activated=True)),
            fraction=0.25,  # 32 of 128
            error=SquaredError(),
        ),
        parts=(MomentumCopy("judge", decay=0.999),),
        optimization=Optimization(
            learning_rate=1e-3,
            epochs=300,
            optimizer=Adam(),
            schedule=Piecewise(((0.5, 0.1), (0.8, 0.01))),
        ),
        task="new",
        inference=Inference(
            SlidingWindow(stride_vox=(24, 24, 24), weighting="uniform", windows_per_batch=8)
        ),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        "raw visits are registered half way, as the challenge's pairs were",
        "z-normalization is over all voxels of the scan, air too: no brain mask is used",
        "groups of the normalization are not stated: 8; levels are joined by concatenation",
        "'bilinear' upsampling in three dimensions is trilinear",
        (
            "the one filter of the last convolution goes through a sigmoid, with a first bias of "
            "-4: not stated"
        ),
        (
            "the error that ranks patches has a sign of its own in Algorithm 1 and is not stated: "
            "the mean squared error of a patch. The Dice loss, tried too, is near 1 for every "
            "patch without a lesion, so that no other patch was ever learned from"
        ),
        "the momentum is not stated: 0.999",
        (
            "a positive patch holds the center of a lesion, in its inner three quarters; patients "
            "with new lesions are equally likely, and within one its lesions"
        ),
        "training ends after 30 000 steps, not after 3 hours",
        (
            "which weights are used is not stated: those of the network that learns, not of its "
            "copy, with the highest validation Dice"
        ),
        "augmentation is not stated: none",
        "the threshold is not stated: 0.5",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32)},
        batch_size=16,
        per_epoch=320,
        learning_rate=2e-3,
        window=SlidingWindow(
            stride_vox=(24, 24, 24), weighting="uniform", windows_per_batch=8, engine="openvino"
        ),
    ),
)
