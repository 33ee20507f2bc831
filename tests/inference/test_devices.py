"""Devices by name."""

import pytest
import torch

from lesionwise.inference.devices import device_of, devices_of
from lesionwise.types import InputError


def test_an_unknown_device_is_named():
    with pytest.raises(InputError, match="device warp"):
        device_of("warp")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here_is_named():
    with pytest.raises(InputError, match="device cuda: no GPU found here"):
        device_of("cuda")
    assert device_of("auto").type == "cpu"


def test_several_devices_are_named_with_commas():
    device, together = devices_of("cpu:0,1")
    assert device.type == "cpu"
    assert together == [0, 1]
    assert devices_of("cpu")[1] == [0]
    assert device_of("cpu:0,1") == device
    with pytest.raises(InputError, match="write several as cpu:0,1"):
        devices_of("cpu:0,x")
