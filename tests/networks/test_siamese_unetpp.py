"""The Siamese U-Net++: shared weights, nested decoders, a refinement of all their maps."""

import torch

from lesionwise.networks.siamese_unetpp import NestedUNet, SiameseUNetPP


def test_it_has_about_thirty_thousand_weights():
    assert sum(p.numel() for p in SiameseUNetPP().parameters()) == 29_944


def test_five_masks_of_the_published_patch():
    with torch.device("meta"):
        output = SiameseUNetPP().eval()(torch.empty(1, 2, 56, 56, 56))
    assert output.shape == (1, 5, 56, 56, 56)


def test_half_precision_ends_in_float32_between_0_and_1():
    network = SiameseUNetPP().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 2, 8, 12, 16))
    assert output.dtype == torch.float32
    assert 0 < output.min() < output.max() < 1
    assert output.mean() < 0.1  # lesions are rare


def test_both_visits_go_through_the_same_weights():
    network = SiameseUNetPP().eval()
    seen = []
    network.segment.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        network(torch.cat([image, image], dim=1))
    ((given, maps),) = seen
    assert given.shape == (2, 1, 8, 8, 8)
    torch.testing.assert_close(maps[0], maps[1])


def test_visits_are_told_apart_by_their_order():
    network = SiameseUNetPP().eval()
    image = torch.randn(1, 2, 8, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(network(image), network(image.flip(1)))


def test_every_decoder_gives_a_map():
    nested = NestedUNet(1, (4, 4, 4, 4), dropout=0.0).eval()
    assert nested(torch.randn(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)
    assert set(nested.nodes) == {
        "0_0", "1_0", "2_0", "3_0", "0_1", "1_1", "2_1", "0_2", "1_2", "0_3"
    }  # fmt: skip


def test_every_convolution_of_the_blocks_is_normalized_and_every_block_drops():
    network = SiameseUNetPP()
    for block in network.segment.nodes.values():
        kinds = [type(layer).__name__ for layer in block]
        assert kinds == ["Conv3d", "BatchNorm3d", "ReLU"] * 2 + ["Dropout"]
    refine = [type(m).__name__ for m in (*network.refine, *network.last)]
    assert refine[0] == "Dropout"
    assert refine.count("Conv3d") == refine.count("BatchNorm3d") == 4


def test_every_weight_has_a_gradient():
    network = SiameseUNetPP().train()
    network(torch.randn(2, 2, 8, 8, 8)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
