"""A network that was converted once is found again, and only that network."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

from lesionwise.inference import converted
from lesionwise.inference.converted import SUFFIX, key_of
from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.networks.blocks import Head
from lesionwise.networks.unet import UNet

# Not importorskip: that imports OpenVINO with its telemetry, which starts a process per event.
pytestmark = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")

SHAPE = (1, 1, 8, 8, 8)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def unet(seed=0):
    torch.manual_seed(seed)
    return UNet(1, 2, (4, 8)).eval()


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv3d(1, 4, 3, padding=1)
        self.first = Head(4, 2)
        self.second = Head(4, 3)

    def forward(self, image):
        x = self.body(image)
        return self.first(x), self.second(x)


def run(network, folder, monkeypatch):
    """The output of a network that is new in this process, and whether it was converted."""
    calls = []
    convert = OpenVinoNetwork._convert
    with monkeypatch.context() as watched:
        watched.setattr(
            OpenVinoNetwork, "_convert", lambda *given: (calls.append(1), convert(*given))[1]
        )
        output = OpenVinoNetwork(network, use_bf16=False, kept_in=folder)(noise(*SHAPE))
    return output, bool(calls)


def kept(folder):
    return sorted(folder.glob(f"*{SUFFIX}"))


@pytest.mark.parametrize(
    "network", [unet(), TwoOutputs().eval(), nn.Conv3d(1, 2, 3).eval()], ids=lambda n: type(n)
)
def test_a_kept_network_gives_the_same_to_the_last_bit(network, tmp_path, monkeypatch):
    first, converted_first = run(network, tmp_path, monkeypatch)
    again, converted_again = run(network, tmp_path, monkeypatch)
    assert (converted_first, converted_again) == (True, False)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(again, network(noise(*SHAPE)), atol=1e-4, rtol=1e-4)


def test_other_weights_are_another_network(tmp_path, monkeypatch):
    run(unet(), tmp_path, monkeypatch)
    other = unet(seed=1)
    output, was_converted = run(other, tmp_path, monkeypatch)
    assert was_converted
    with torch.no_grad():
        torch.testing.assert_close(output, other(noise(*SHAPE)), atol=1e-4, rtol=1e-4)
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize("name", ["body.weight", "first.bias"])
def test_the_key_changes_with_every_weight(name):
    network = TwoOutputs()
    before = key_of(network, {})
    with torch.no_grad():
        network.get_parameter(name).view(-1)[-1] += 1e-6
    assert key_of(network, {}) != before


def test_the_key_changes_with_structure_and_settings():
    network = unet()
    assert key_of(network, {"shape": SHAPE}) != key_of(network, {"shape": (2, *SHAPE[1:])})
    plain, leaky = nn.Sequential(nn.ReLU()), nn.Sequential(nn.LeakyReLU())
    assert key_of(plain, {}) != key_of(leaky, {})


def test_the_key_changes_with_the_source_of_the_network(tmp_path, monkeypatch):
    def written(expression):
        path = tmp_path / "own_network.py"
        path.write_text(
            "import torch\n\n\nclass Own(torch.nn.Module):\n"
            f"    def forward(self, image):\n        return {expression}\n"
        )
        names = {"__name__": "own_network", "__file__": str(path)}
        exec(compile(path.read_text(), str(path), "exec"), names)
        module = type(os)("own_network")
        module.__dict__.update(names)
        monkeypatch.setitem(converted.sys.modules, "own_network", module)
        return key_of(names["Own"](), {})

    assert written("image + 1") != written("image + 2")


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def one_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def of_another(path):
    """What was kept of another network, under this name."""
    with safe_open(path, framework="np") as file:
        record, weights = file.metadata(), file.get_tensor("weights")
    save_file({"weights": weights}, path, metadata={**record, "key": "0" * 64})


def other_heads(path):
    with safe_open(path, framework="np") as file:
        record, weights = file.metadata(), file.get_tensor("weights")
    save_file({"weights": weights}, path, metadata={**record, "heads": '["no.such"]'})


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        one_bit,
        of_another,
        other_heads,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("text"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_or_foreign_file_is_made_again(damage, tmp_path, monkeypatch):
    first, _ = run(unet(), tmp_path, monkeypatch)
    [path] = kept(tmp_path)
    damage(path)
    again, was_converted = run(unet(), tmp_path, monkeypatch)
    assert was_converted
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    if path.is_file():
        assert run(unet(), tmp_path, monkeypatch)[1] is False


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="its user may write anywhere")
def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    try:
        output, was_converted = run(unet(), tmp_path, monkeypatch)
    finally:
        tmp_path.chmod(0o700)
    assert was_converted
    assert output.shape == (1, 2, 8, 8, 8)


def test_a_folder_that_cannot_be_made_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    output, was_converted = run(unet(), tmp_path / "file" / "cache", monkeypatch)
    assert was_converted
    assert output.shape == (1, 2, 8, 8, 8)


def test_nothing_is_kept_of_a_network_that_torch_computes(tmp_path, monkeypatch):
    wrong = OpenVinoNetwork(unet(), use_bf16=False, kept_in=tmp_path)
    monkeypatch.setattr(wrong, "_compiled", lambda *given: lambda patches: patches * 0)
    wrong(noise(*SHAPE))
    assert kept(tmp_path) == []


def test_nothing_but_whole_files_is_left(tmp_path, monkeypatch):
    run(unet(), tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == kept(tmp_path)


def test_those_used_least_recently_go_first(tmp_path, monkeypatch):
    for seed in range(3):
        run(unet(seed), tmp_path, monkeypatch)
        for path in kept(tmp_path):  # all a little older
            os.utime(path, (path.stat().st_mtime - 100,) * 2)
    run(unet(0), tmp_path, monkeypatch)  # used again
    largest = max(path.stat().st_size for path in kept(tmp_path))
    monkeypatch.setattr(converted, "MAX_KEPT_BYTES", 3 * largest + 100)
    run(unet(3), tmp_path, monkeypatch)
    assert [run(unet(seed), tmp_path, monkeypatch)[1] for seed in (3, 0, 2)] == [False] * 3
    assert run(unet(1), tmp_path, monkeypatch)[1]
