"""FC-DenseNet on stacks of slices."""

import pytest
import torch

from lesionwise.networks.blocks import Head, init_head_bias
from lesionwise.networks.fc_densenet import DenseBlock, FcDenseNet2d, plane_fc_densenet


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
def test_slices_of_any_size_come_back_with_it(size):
    network = plane_fc_densenet(6, 1, layers=(2, 2), growth=4, first=8)
    assert network(torch.zeros(2, 2, *size, 3)).shape == (2, 1, *size, 1)


def test_a_block_passes_on_what_it_made_and_its_input_if_asked():
    x = torch.randn(1, 5, 8, 8)
    alone = DenseBlock(5, 3, 4, 0.0, keep_input=False)
    both = DenseBlock(5, 3, 4, 0.0, keep_input=True)
    both.load_state_dict(alone.state_dict())
    assert alone(x).shape[1] == 12
    torch.testing.assert_close(both(x), torch.cat([x, alone(x)], dim=1))


def test_every_layer_sees_all_before_it():
    block = DenseBlock(5, 3, 4, 0.0, keep_input=False)
    assert [layer[2].in_channels for layer in block.layers] == [5, 8, 11, 14]


def test_it_has_the_parameters_of_fc_densenet_56():
    # Jégou et al. (2017), table 1 and 2: 48 channels first, 4 layers a block, growth 12
    def layer(before, after, kernel):
        return 2 * before + kernel**2 * before * after + after

    def block(before):
        return sum(layer(before + 12 * n, 12, 3) for n in range(4))

    down = [48 + 48 * n for n in range(5)]
    expected = 9 * 3 * 48 + 48 + sum(block(c) + layer(c + 48, c + 48, 1) for c in down)
    expected += block(288) + 5 * (9 * 48 * 48 + 48)
    expected += sum(block(48 + c + 48) for c in down)
    expected += (48 + 96 + 48) * 12 + 12
    with torch.device("meta"):
        network = FcDenseNet2d(3)
        head = Head(network.out_features, 12)
    assert parameters(network) + parameters(head) == expected == 1_376_988


def test_the_published_stack_gives_its_center_slice():
    with torch.device("meta"):
        network = plane_fc_densenet(6, 1)
        output = network.eval()(torch.zeros(16, 2, 128, 128, 3))
    assert output.shape == (16, 1, 128, 128, 1)


def test_outputs_lie_between_minus_one_and_one_and_start_near_the_background():
    torch.manual_seed(0)
    network = plane_fc_densenet(3, 1, layers=(2, 2), growth=4, first=8).eval()
    init_head_bias(network, (-2.0,))
    output = network(torch.randn(1, 1, 32, 32, 3))
    assert float(output.detach().abs().max()) < 1
    assert float(output.detach().mean()) < -0.5


def test_dropout_is_off_in_evaluation():
    network = plane_fc_densenet(3, 1, layers=(2, 2), growth=4, first=8).eval()
    image = torch.randn(1, 1, 16, 16, 3)
    torch.testing.assert_close(network(image), network(image), rtol=0, atol=0)
