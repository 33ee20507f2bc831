"""OpenVINO computes what torch computes."""

import pytest
import torch

from lesionwise.learning.engine import Compiled
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.pre_unet import PreUNet
from lesionwise.networks.unet import UNet

pytest.importorskip("openvino")


@pytest.mark.parametrize(
    "network", [UNet(2, 6, (4, 8)), PreUNet(2, 2, (8, 16))], ids=["one", "two"]
)
def test_float32_agrees_with_torch(network):
    network.eval()
    patches = torch.randn((2, 2, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(patches)
    seen = Compiled(network, low=False)(patches)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


def test_each_shape_is_compiled_once():
    network = UNet(1, 2, (4, 8)).eval()
    compiled = Compiled(network, low=False)
    for batch in (1, 2, 1):
        assert compiled(torch.zeros((batch, 1, 8, 8, 8))).shape == (batch, 2, 8, 8, 8)
    assert len(compiled._infer) == 2


def test_it_compiles_while_torch_computes_in_half_precision():
    network = GroupUNet(2, 2, features=(8, 16), dropout=0.5, groups=8).eval()
    patches = torch.randn((1, 2, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(patches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = Compiled(network, low=False)(patches)
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)
