"""The network without pooling."""

import pytest
import torch

from lesionwise.networks.roi_cnn import RoiCnn


def test_it_takes_crops_of_any_size():
    network = RoiCnn(features=(2, 3, 4, 5, 4, 3, 2))
    for size in ((1, 5, 6), (7, 4, 9)):
        assert network(torch.zeros(1, 5, *size)).shape == (1, 2, *size)


def test_the_published_network_takes_a_crop_on_the_meta_device():
    with torch.device("meta"):
        assert RoiCnn()(torch.zeros(2, 5, 12, 17, 9)).shape == (2, 2, 12, 17, 9)


def test_the_maps_join_after_the_third_convolution_and_the_follow_up_before_the_seventh():
    network = RoiCnn()
    widths = [getattr(network, f"conv{n}")[0].in_channels for n in range(1, 8)]
    # 2 scans; 3 maps beside the third's 64; the second's 32 beside the fourth's 64; F beside 16
    assert widths == [2, 16, 32, 64 + 3, 64 + 32, 32, 16 + 1]


def test_every_channel_reaches_the_output():
    torch.manual_seed(0)
    network = RoiCnn(features=(4, 4, 4, 4, 4, 4, 4)).eval()
    image = torch.randn(1, 5, 6, 6, 6, requires_grad=True)
    network(image).abs().sum().backward()
    assert (image.grad.abs().sum(dim=(0, 2, 3, 4)) > 0).all()


def test_nothing_is_strided_or_pooled_so_far_voxels_play_no_part():
    torch.manual_seed(0)
    network = RoiCnn(features=(2, 2, 2, 2, 2, 2, 2)).eval()
    image = torch.randn(1, 5, 24, 3, 3)
    changed = image.clone()
    changed[:, :, 20:] += 5
    with torch.no_grad():
        same = network(image)[:, :, :13] == network(changed)[:, :, :13]
    assert same.all()  # seven convolutions reach seven voxels: 20 - 7 = 13


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ValueError, match="three maps"):
        RoiCnn(in_channels=2)


def crops(*sides):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 5, side, side, 4, generator=generator) for side in sides]


def test_crops_together_are_in_evaluation_what_each_is_alone():
    network = RoiCnn(features=(4,) * 7).eval()
    images = crops(5, 7, 6)
    for one, other in zip(network.forward_crops(images), map(network, images), strict=True):
        torch.testing.assert_close(one, other)


def test_batch_normalization_is_over_the_voxels_of_all_crops():
    network = RoiCnn(features=(4,) * 7).train()
    images = crops(5, 5)
    # crops of one size make a plain batch
    together = torch.cat(network.forward_crops(images))
    torch.testing.assert_close(together, network(torch.cat(images)))


def test_what_one_crop_shows_changes_the_statistics_of_another():
    network = RoiCnn(features=(4,) * 7).train()
    small, large = crops(4, 9)
    alone = network.forward_crops([small])[0]
    assert not torch.allclose(alone, network.forward_crops([small, 5 * large])[0])
