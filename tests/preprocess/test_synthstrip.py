"""SynthStrip: the shape of the network and of its file, and the way to it and back."""

import numpy as np
import pytest
import torch
from torch import nn

from lesionwise.preprocess.synthstrip import (
    SynthStripBrain,
    SynthStripNetwork,
    read_network,
    strip,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def volume(array, spacing=(1.0, 1.0, 1.0)):
    return Volume(array, Grid(array.shape, np.diag([*spacing, 1.0])))


def test_network_has_the_layers_of_the_published_file():
    shapes = {name: tuple(p.shape[:2]) for name, p in SynthStripNetwork().state_dict().items()}
    weights = {name: s for name, s in shapes.items() if name.endswith("weight")}
    assert len(weights) == 27
    assert weights["encoder.0.0.conv.weight"] == (16, 1)
    assert weights["encoder.5.1.conv.weight"] == (64, 64)
    assert weights["decoder.0.0.conv.weight"] == (64, 64)
    assert weights["decoder.1.0.conv.weight"] == (64, 128)
    assert weights["decoder.5.0.conv.weight"] == (32, 96)
    assert weights["remaining.0.conv.weight"] == (16, 48)
    assert weights["remaining.2.conv.weight"] == (1, 16)


def test_network_keeps_the_size():
    with torch.inference_mode():
        out = SynthStripNetwork((2, 2, 2, 2, 2, 2))(torch.zeros(1, 1, 64, 64, 128))
    assert out.shape == (1, 1, 64, 64, 128)


def test_weights_are_read_back_and_other_files_are_refused(tmp_path):
    saved = SynthStripNetwork()
    path = tmp_path / "synthstrip.pt"
    torch.save({"model_state_dict": saved.state_dict()}, path)
    read = read_network(path)
    for name, value in saved.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)
    torch.save({"model_state_dict": nn.Linear(2, 2).state_dict()}, path)
    with pytest.raises(InputError, match="not SynthStrip weights"):
        read_network(path)
    path.write_text("not weights")
    with pytest.raises(InputError, match="not SynthStrip weights"):
        read_network(path)
    with pytest.raises(InputError, match="no such file"):
        SynthStripBrain(str(tmp_path / "missing.pt"))(Study("01", (visit(),)))


def visit():
    return Visit({"flair": volume(np.ones((4, 4, 4), np.float32))})


class Darkness(nn.Module):
    """Stands for the network: below the border where the scan is brighter than 0.5."""

    def forward(self, x):
        assert x.shape == (1, 1, 192, 192, 192)
        return 10 * (0.6 - x)


def test_the_mask_comes_back_to_the_voxels_it_was_found_in():
    array = np.zeros((100, 90, 80), np.float32)
    array[5:95, 5:85, 5:75] = 20  # the head
    array[8:68, 20:70, 10:50] = 100  # no symmetry, so that a turned axis shows
    scan = volume(array, (1.0, 1.0, 1.0))
    mask = strip(scan, Darkness(), 1.0)
    assert mask.grid is scan.grid
    np.testing.assert_array_equal(mask.array, array == 100)


def test_visits_with_masks_need_no_weights():
    brain = volume(np.ones((4, 4, 4), bool))
    study = Study("01", (Visit({"flair": volume(np.ones((4, 4, 4)))}, {}, brain),))
    assert SynthStripBrain("missing.pt")(study) is study
