"""A small brain with box lesions on a grid whose three spacings differ, and short settings."""

import numpy as np

from lesionwise.methods.nnunet import Learning, NnunetMethod, Plans
from lesionwise.types import Grid, Study, Visit, Volume

SHAPE = (28, 30, 26)
SPACING_MM = (1.5, 1.2, 2.0)
GRID = Grid(SHAPE, np.diag([*SPACING_MM, 1.0]))
SHORT = Learning(epochs=2, batches_per_epoch=3, validation_batches=1, save_every=1)
SMALL = Plans(patch_size_vox=(16, 16, 16), base_features=4, batch_size=2)


def study(seed, visits=1):
    """Three boxes of 4 × 4 × 3 voxels; with two visits they are new at the second."""
    rng = np.random.default_rng(seed)
    middle = np.array(SHAPE)[:, None, None, None] / 2
    brain = ((np.indices(SHAPE) - middle) ** 2 / (middle * 0.9) ** 2).sum(axis=0) < 1
    lesions = np.zeros(SHAPE, np.int32)
    for label in (1, 2, 3):
        i, j, k = rng.integers(9, 17, 3)
        lesions[i : i + 4, j : j + 4, k : k + 3] = label
    noise = [rng.normal(0, 5, SHAPE) for _ in range(visits)]
    found = []
    for number in range(visits):
        bright = 80 * (lesions > 0) if number == visits - 1 else 0
        # outside the brain there is a skull, which a method must not see
        image = np.where(brain, 100 + noise[number] + bright, 300).astype(np.float32)
        labels = {"instances": Volume(lesions, GRID)} if number == visits - 1 else {}
        found.append(Visit({"flair": Volume(image, GRID)}, labels, Volume(brain, GRID)))
    changes = {"new": Volume(lesions, GRID)} if visits == 2 else {}
    return Study(str(seed), tuple(found), changes)


def method(**changes):
    return NnunetMethod(**{"scans": ("flair",), "plans": SMALL, "learning": SHORT, **changes})
