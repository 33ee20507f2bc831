import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from lesionwise.learning.targets import centers_of_mass
from lesionwise.methods.nnunet.losses import HeadsLoss
from lesionwise.methods.nnunet.settings import Augmentation, InstanceHeads, LesionEnhancement
from lesionwise.methods.nnunet.transforms import Enhance, adapt

SHAPE = (16, 18, 20)
SPACING_MM = (2.0, 1.0, 1.5)


def stock(rotation=0.5):
    return nnUNetTrainer.get_training_transforms(
        SHAPE, (-rotation, rotation), [[1, 1, 1], [0.5, 0.5, 0.5]], (0, 1, 2), False,
        use_mask_for_norm=[True, True], foreground_labels=[1],
    )  # fmt: skip


def patch(channels=2):
    """Two touching boxes in a larger field, -1 around them."""
    labels = np.full((1, 24, 26, 28), -1, np.int16)
    labels[0, 2:-2, 2:-2, 2:-2] = 0
    labels[0, 8:12, 9:14, 10:14] = 3
    labels[0, 12:16, 9:14, 10:14] = 5
    image = np.random.default_rng(0).normal(0, 1, (channels, *labels.shape[1:]))
    image = torch.from_numpy(image.astype(np.float32))
    return {"image": image, "segmentation": torch.from_numpy(labels)}


def spatial(transforms):
    return next(t for t in transforms.transforms if isinstance(t, SpatialTransform))


def test_ranges_are_taken_over():
    told = Augmentation(scaling=(0.85, 1.25), elastic=0.2, intensity=False)
    made = adapt(stock(), told, None, SPACING_MM, [1])
    assert spatial(made).scaling == (0.85, 1.25)
    assert spatial(made).p_elastic_deform == 0.2
    assert not any(isinstance(t, RandomTransform) for t in made.transforms)


def test_by_default_nnunets_augmentation_stays():
    before, after = stock(), adapt(stock(), Augmentation(), None, SPACING_MM, [0])
    assert [type(t) for t in after.transforms] == [type(t) for t in before.transforms]
    assert spatial(after).scaling == spatial(before).scaling


def test_lesions_of_the_last_visit_alone_are_enhanced():
    before = patch()
    after = Enhance(LesionEnhancement(1.0, (0.5, 0.5)), [1])(**patch())
    added = after["image"] - before["image"]
    lesion = before["segmentation"][0] > 0
    assert torch.allclose(added[1][lesion], torch.tensor(0.5))
    assert (added[0] == 0).all()
    assert (added[1][~lesion] == 0).all()


def test_enhancement_comes_before_patches_are_turned():
    told = Augmentation(enhancement=LesionEnhancement())
    kinds = [type(t) for t in adapt(stock(), told, None, SPACING_MM, [1]).transforms]
    assert kinds.index(Enhance) < kinds.index(SpatialTransform)


@pytest.mark.parametrize("seed", range(6))
def test_offsets_point_to_centers_after_every_transform(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (nnU-Net draws from it)
    made = adapt(stock(), Augmentation(elastic=0.5), InstanceHeads(), SPACING_MM, [1])
    held = made(**patch())
    full, half, heads = held["segmentation"]
    assert full.shape == (1, *SHAPE)
    assert half.shape == (1, 8, 9, 10)
    assert heads.shape == (4, *SHAPE)
    assert set(torch.unique(full).tolist()) <= {0, 1}
    lesion = full[0] > 0
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in SHAPE], indexing="ij")).float()
    centers = torch.unique((index + heads[1:])[:, lesion].T.round(decimals=3), dim=0)
    # two lesions that touch keep two centers, whatever was turned, bent or mirrored
    assert 1 <= len(centers) <= 2
    assert (heads[1:][:, ~lesion] == 0).all()
    assert heads[0].max() <= 1


def test_touching_lesions_have_a_center_each():
    made = adapt(stock(0.0), Augmentation(intensity=False), InstanceHeads(), SPACING_MM, [1])
    made.transforms = [t for t in made.transforms if type(t).__name__ != "MirrorTransform"]
    spatial(made).p_scaling = 0
    full, _, heads = made(**patch())["segmentation"]
    labels = patch()["segmentation"][0, 4:20, 4:22, 4:24].numpy()
    _, centers = centers_of_mass(np.maximum(labels, 0))
    where = np.argwhere(labels == 3)
    seen = heads[1:].numpy()[(slice(None), *where.T)].T + where
    np.testing.assert_allclose(seen, np.broadcast_to(centers[0], seen.shape), atol=1e-4)
    assert full.sum() == (labels > 0).sum()


def test_loss_of_heads_is_their_weighted_sum():
    def nothing(output, target):
        assert output[0].shape[1] == 2
        return torch.zeros(())

    mask = torch.zeros(1, 1, 2, 2, 2)
    mask[0, 0, 0, 0, 0] = 1
    heads = torch.zeros(1, 4, 2, 2, 2)
    output = torch.zeros(1, 6, 2, 2, 2)
    output[:, 2] = 0.5  # a squared error of 0.25 everywhere
    output[:, 3:] = 2.0  # an absolute error of 2 on the one lesion voxel, and beside it
    loss = HeadsLoss(nothing, InstanceHeads(heatmap=4.0, offsets=0.5))
    assert loss([output], [mask, heads]).item() == pytest.approx(4 * 0.25 + 0.5 * 2)
    assert loss([output], [mask * 0, heads]).item() == pytest.approx(4 * 0.25)
