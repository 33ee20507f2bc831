import numpy as np
import pytest
import torch

from lesionwise.methods.nnunet.checkpoints import (
    canonical_names,
    load_network,
    read_checkpoint,
    save_network,
    set_weights,
)
from lesionwise.types import InputError


class Twice(torch.nn.Module):
    """Holds one layer under two names, as nnU-Net's networks do."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 2)
        self.same = torch.nn.Sequential(self.first)


def test_numpy_numbers_are_read(tmp_path):
    path = tmp_path / "checkpoint.pth"
    held = {
        "network_weights": {"w": torch.ones(2)},
        "logging": {"dice": [np.float64(0.5), np.float32(0.25)], "counts": np.arange(3)},
    }
    torch.save(held, path)
    read = read_checkpoint(path)
    assert read["logging"]["dice"] == [0.5, 0.25]
    assert read["logging"]["counts"].tolist() == [0, 1, 2]


class Harmful:
    def __reduce__(self):
        import os

        return os.system, ("echo harm > /dev/null",)


def test_what_could_run_code_is_refused_and_named(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"network_weights": {}, "extra": Harmful()}, path)
    with pytest.raises(InputError, match="could run code") as fault:
        read_checkpoint(path)
    assert "\n" not in str(fault.value)
    assert "system" in str(fault.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pth"):
        read_checkpoint(path)
    with pytest.raises(InputError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.pth")


def test_a_tensor_with_two_names_is_kept_once(tmp_path):
    network, other = Twice(), Twice()
    assert set(canonical_names(network).values()) == {"first.weight", "first.bias"}
    save_network(network.state_dict(), network, tmp_path / "model.safetensors")
    load_network(other, tmp_path / "model.safetensors")
    assert torch.equal(other.first.weight, network.first.weight)


def test_weights_of_another_network_are_refused(tmp_path):
    network = torch.nn.Linear(2, 2)
    save_network(network.state_dict(), network, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="another network"):
        load_network(Twice(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="another network"):
        set_weights(torch.nn.Linear(3, 2), network.state_dict(), "model")


def test_names_of_parallel_training_are_understood():
    network, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    set_weights(other, {f"module.{k}": v for k, v in network.state_dict().items()}, "model")
    assert torch.equal(other.weight, network.weight)
