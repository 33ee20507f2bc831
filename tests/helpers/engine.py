"""Small studies and methods for tests of the training engine."""

from dataclasses import replace
from functools import partial

import numpy as np

from lesionwise.inference.window import SlidingWindow
from lesionwise.learning.losses import CrossEntropy, Dice, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.samples import Patches
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import Inference, NetworkMethod, Runtime
from lesionwise.methods.selection import Selection
from lesionwise.networks.unet import UNet
from lesionwise.types import Grid, Study, Visit, Volume

SIDE = 16
EXACT = SlidingWindow(precision="float32")


def visit_of(seed=0, side=SIDE, spacing=(1.0, 1.0, 1.0), subject=None):
    """One visit with two bright lesions, 1 and 2."""
    rng = np.random.default_rng(seed)
    grid = Grid((side,) * 3, np.diag([*spacing, 1.0]))
    labels = np.zeros(grid.shape, dtype=np.int32)
    labels[2:6, 2:6, 3:8] = 1
    labels[9:14, 9:13, 9:13] = 2
    image = (labels > 0) * 2.0 + 0.3 * rng.standard_normal(grid.shape)
    visit = Visit(
        scans={"flair": Volume(image.astype(np.float32), grid)},
        labels={"instances": Volume(labels, grid)},
        brain=Volume(np.ones(grid.shape, dtype=bool), grid),
    )
    return Study(subject or f"s{seed}", (visit,))


def pair_of(seed=0):
    """Two visits; one lesion was there, one is new."""
    rng = np.random.default_rng(seed)
    grid = Grid((SIDE,) * 3, np.eye(4))
    old = np.zeros(grid.shape, dtype=np.int32)
    old[2:6, 2:6, 3:8] = 1
    new = np.zeros(grid.shape, dtype=np.int32)
    new[9:14, 9:13, 9:13] = 1
    brain = Volume(np.ones(grid.shape, dtype=bool), grid)
    visits = tuple(
        Visit(
            {
                "flair": Volume(
                    (2.0 * seen + 0.3 * rng.standard_normal(grid.shape)).astype("f4"), grid
                )
            },
            brain=brain,
        )
        for seen in (old > 0, (old + new) > 0)
    )
    return Study(f"s{seed}", visits, {"new": Volume(new, grid)})


def unlabelled(study):
    """A study of which nothing but scans is known."""
    visits = tuple(Visit(v.scans, brain=v.brain, session=v.session) for v in study.visits)
    return Study(study.subject, visits)


METHOD = NetworkMethod(
    network=partial(UNet, in_channels=1, out_channels=2, features=(8, 16)),
    scans=("flair",),
    samples=Patches(size_vox=(SIDE,) * 3, batch_size=2, per_epoch=4),
    objective=Supervised(LesionMask(), WeightedSum(((1.0, CrossEntropy()), (1.0, Dice())))),
    optimization=Optimization(learning_rate=2e-2, epochs=3),
    inference=Inference(EXACT),
    selection=Selection(every=1, window=EXACT),
    runtime=Runtime(precision="float32"),
)
PAIRS = replace(
    METHOD,
    network=partial(UNet, in_channels=2, out_channels=2, features=(8, 16)),
    task="new",
)


def longer(method, epochs, per_epoch):
    """The method with another length."""
    return replace(
        method,
        samples=replace(method.samples, per_epoch=per_epoch),
        optimization=replace(method.optimization, epochs=epochs),
    )


def dice(found, truth):
    """Of two masks."""
    both = found.sum() + truth.sum()
    return 2 * (found & truth).sum() / both if both else 1.0
