"""B27's networks: shapes, the gate's equation, what the encoder shares."""

import pytest
import torch

from lesionwise.networks.dual_attention import (
    WIDTHS,
    DifferenceGate,
    DualAttentionUNet,
    DualAutoencoder,
    ResidualBlock,
)

SMALL = (8, 16, 24)


def test_the_output_has_the_size_of_the_patch_in_float32():
    network = DualAttentionUNet(2, SMALL).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 2, 8, 12, 16))
    assert output.shape == (1, 2, 8, 12, 16)
    assert output.dtype == torch.float32


def test_six_levels_take_the_published_patch():
    # 002:3156-3157: 16 to 512 filters, groups of 4; 3211: 32 x 32 x 32
    with torch.device("meta"):
        network = DualAttentionUNet(2)
        assert network(torch.empty(1, 2, 32, 32, 32)).shape == (1, 2, 32, 32, 32)
        assert network.encoder(torch.empty(1, 1, 32, 32, 32))[-1].shape == (1, 512, 1, 1, 1)
    assert WIDTHS == (16, 32, 64, 128, 256, 512)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS
    norms = [m for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {n.num_channels // n.num_groups for n in norms} == {4}


PARAMETERS = 24_373_762


@pytest.mark.parametrize("make", [DualAttentionUNet, DualAutoencoder])
def test_every_weight_has_a_gradient_on_the_published_patch(make):
    network = make().train()
    network(torch.randn(1, 2, 32, 32, 32)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_gate_is_the_correlation_times_the_embedded_difference():
    gate = DifferenceGate(3)
    before, after = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3, 4, 5, 6)

    def normal(x):
        flat = x.flatten(2)
        mean, var = flat.mean(2), flat.var(2, unbiased=False)
        return (x - mean[..., None, None, None]) / (var[..., None, None, None] + 1e-5).sqrt()

    n0, n1 = normal(before), normal(after)
    weight = gate.embed.weight[:, :, 0, 0, 0]
    expected = (n0 * n1).mean(1, keepdim=True).abs() * torch.einsum(
        "fc,bcijk->bfijk", weight, n1 - n0
    )
    torch.testing.assert_close(gate(before, after), expected)


def test_over_features_the_weight_is_pearsons_correlation_of_each_voxel():
    gate = DifferenceGate(16, over="features")
    before, after = torch.randn(1, 16, 1, 1, 1), torch.randn(1, 16, 1, 1, 1)
    both = torch.stack([before.flatten(), after.flatten()])
    pearson = torch.corrcoef(both)[0, 1].abs()
    n0, n1 = gate.norm(before), gate.norm(after)
    torch.testing.assert_close(
        gate(before, after), pearson * gate.embed(n1 - n0), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("over", ["space", "features"])
def test_where_nothing_changed_the_gate_is_silent(over):
    same = torch.randn(1, 8, 4, 4, 4)
    assert DifferenceGate(8, over)(same, same).abs().max() == 0


def test_the_same_scan_twice_gives_the_same_answer_everywhere_but_for_the_border():
    network = DualAttentionUNet(2, SMALL).eval()
    scan = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        one = network(torch.cat([scan, scan], 1))
        other = network(torch.zeros(1, 2, 16, 16, 16))
    torch.testing.assert_close(one, other)


def test_both_networks_share_the_encoder_weight_by_weight():
    first, then = DualAutoencoder(SMALL), DualAttentionUNet(2, SMALL)
    mine = {n: p.shape for n, p in first.encoder.state_dict().items()}
    assert mine == {n: p.shape for n, p in then.encoder.state_dict().items()}
    assert any(n.startswith("encoder.") for n in then.state_dict())


def test_each_visit_is_rebuilt_by_a_block_of_its_own():
    network = DualAutoencoder(SMALL).eval()
    scan = torch.randn(1, 1, 8, 8, 8)
    rebuilt, features = network.rebuild(torch.cat([scan, scan], 1))
    assert not torch.allclose(rebuilt[:, 0], rebuilt[:, 1])
    assert len(features) == len(SMALL)
    for one, two in features:
        torch.testing.assert_close(one, two)


def test_a_narrow_block_is_one_group():
    assert ResidualBlock(1, 2).body[1].num_groups == 1
