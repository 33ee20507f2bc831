"""OpenVINO computes what torch computes, and reports to nobody."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from lesionwise.inference import openvino as module
from lesionwise.inference.openvino import OpenVinoNetwork, difference, has_openvino
from lesionwise.inference.views import MonteCarlo, dropout_on
from lesionwise.networks.blocks import Head
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.planes import InPlane
from lesionwise.networks.pre_unet import PreUNet
from lesionwise.networks.unet import UNet

# Not importorskip: that imports OpenVINO with its telemetry, which starts a process per event.
pytestmark = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class TwoOutputs(nn.Module):
    """Two heads of one body; the second output may be made from the first one."""

    def __init__(self, chained=False, inner=False):
        super().__init__()
        self.body = nn.Conv3d(2, 4, 3, padding=1)
        self.first = Head(4, 4)
        self.second = Head(4, 4)
        self.chained = chained
        self.inner = inner

    def forward(self, image):
        x = self.body(image).relu()
        if self.inner:
            x = self.first(x).sin()
            return x, x.cos()
        first = self.first(x)
        return first, self.second(first.sin() if self.chained else x)


NETWORKS = {
    "one": UNet(2, 6, (4, 8)),
    "several heads, one output": PreUNet(2, 2, (8, 16)),
    "a tuple": TwoOutputs(),
    "a head after a head": TwoOutputs(chained=True),
    "no head at the end": TwoOutputs(inner=True),
    "no head at all": nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.Sigmoid()),
    "nothing but a head": Head(2, 3),
    "no padding": nn.Sequential(nn.Conv3d(2, 3, 3), nn.ReLU(), Head(3, 2)),
    "planes": nn.Sequential(InPlane(nn.Conv2d(16, 4, 3, padding=1)), Head(4, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_agrees_with_torch(name):
    network = NETWORKS[name].eval()
    patches = noise(2, 2, 8, 8, 8)
    with torch.no_grad():
        expected = network(patches)
    seen = OpenVinoNetwork(network, use_bf16=False)(patches)
    assert type(seen) is type(expected)
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["one", "a tuple"])
def test_heads_at_the_end_are_computed_by_torch(name, monkeypatch):
    network = NETWORKS[name].eval()
    compiled = OpenVinoNetwork(network, use_bf16=False)
    compiled(noise(1, 2, 8, 8, 8))
    calls = []
    forward = Head.forward
    monkeypatch.setattr(Head, "forward", lambda *args: (calls.append(1), forward(*args))[1])
    compiled(noise(1, 2, 8, 8, 8))
    assert len(calls) == (2 if name == "a tuple" else 1)


def test_each_shape_is_compiled_once():
    network = UNet(1, 2, (4, 8)).eval()
    compiled = OpenVinoNetwork(network, use_bf16=False)
    for batch in (1, 2, 1):
        assert compiled(torch.zeros((batch, 1, 8, 8, 8))).shape == (batch, 2, 8, 8, 8)
    assert len(compiled._infer) == 2


def test_calls_from_several_threads_compile_once_and_get_their_own_answers(monkeypatch):
    convert, calls = OpenVinoNetwork._convert, []
    monkeypatch.setattr(
        OpenVinoNetwork, "_convert", lambda *given: (calls.append(1), convert(*given))[1]
    )
    network = UNet(1, 2, (4, 8)).eval()
    patches = [noise(1, 1, 8, 8, 8) * n for n in range(12)]
    with torch.no_grad():
        expected = [network(each) for each in patches]
    compiled = OpenVinoNetwork(network, use_bf16=False, threads=2, at_once=2)
    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(compiled, patches))
    for given, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-4)
    assert len(calls) == 1


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (4, 3)])
def test_no_more_calls_compute_together_than_there_are_threads(threads, at_once):
    network = OpenVinoNetwork(UNet(1, 2, (4, 8)), use_bf16=False, threads=threads, at_once=3)
    assert network.at_once == at_once


def test_it_compiles_while_torch_computes_in_half_precision():
    network = GroupUNet(2, 2, features=(8, 16), dropout=0.5, groups=8).eval()
    patches = noise(1, 2, 8, 8, 8)
    with torch.inference_mode():
        expected = network(patches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            seen = OpenVinoNetwork(network, use_bf16=False)(patches)
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


def test_compiling_leaves_the_network_and_the_random_state_alone():
    network = UNet(1, 2, (4, 8)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    OpenVinoNetwork(network, use_bf16=False)(torch.zeros(1, 1, 8, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_dropout_that_is_on_drops():
    network = GroupUNet(1, 2, features=(8, 16), dropout=0.5, groups=8).eval()
    compiled = OpenVinoNetwork(network, use_bf16=False)
    image = noise(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(compiled(image), compiled(image))
        with dropout_on(network):
            assert not torch.equal(compiled(image), compiled(image))
        apply = MonteCarlo(passes=2).around(network, compiled)
        assert not torch.equal(apply(image), apply(image))


class Scaled(nn.Module):
    conditions = ("spacing_mm",)

    def forward(self, image, spacing_mm):
        return image * spacing_mm.sum(1).view(-1, 1, 1, 1, 1)


def test_conditions_reach_the_network():
    compiled = OpenVinoNetwork(Scaled(), use_bf16=False)
    assert compiled.conditions == ("spacing_mm",)
    seen = compiled(torch.ones(1, 1, 2, 2, 2), spacing_mm=torch.tensor([[1.0, 1.0, 3.0]]))
    assert seen.unique().tolist() == [5.0]


ALONE = """
import socket

def refuse(*args, **kwargs):
    print("network:", args, flush=True)
    raise SystemExit(3)

for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)
socket.socket.connect = refuse
socket.socket.connect_ex = refuse
import threading, torch
from lesionwise.inference import openvino as module
from lesionwise.inference.openvino import OpenVinoNetwork, difference
OpenVinoNetwork(torch.nn.Conv3d(1, 1, 1).eval(), use_bf16=False)(torch.zeros(1, 1, 4, 4, 4))
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(5)
print("computed")
"""


def test_it_looks_up_no_host_and_writes_nothing_to_the_home_folder(tmp_path):
    quiet = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env=quiet | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "computed", done.stdout + done.stderr
    assert list(tmp_path.rglob("*")) == []


def test_the_difference_is_a_share_of_the_expected_output():
    expected = torch.full((1, 1, 2, 2, 2), 10.0)
    assert difference(expected + 1, expected) == pytest.approx(0.1)
    assert difference((expected, expected * 1.5), (expected, expected)) == pytest.approx(0.5)
    assert difference(expected * 0, expected * 0) == 0
    assert difference(expected * float("nan"), expected) == float("inf")
    assert difference(expected[:, :, :1], expected) == float("inf")


def test_torch_computes_what_openvino_gets_wrong_and_says_so(monkeypatch, caplog):
    network = NETWORKS["one"].eval()
    patches = noise(1, 2, 8, 8, 8)
    wrong = OpenVinoNetwork(network, use_bf16=False)
    monkeypatch.setattr(
        wrong, "_compiled", lambda *converted: lambda patches: network(patches) + 0.1
    )
    with torch.no_grad():
        expected = network(patches)
    torch.testing.assert_close(wrong(patches), expected)
    torch.testing.assert_close(wrong(patches), expected)
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "OpenVINO does not compute this network as torch does"
    ]
    monkeypatch.setattr(module, "MAX_DIFFERENCE", {"f32": 10.0})
    trusted = OpenVinoNetwork(network, use_bf16=False)
    monkeypatch.setattr(
        trusted, "_compiled", lambda *converted: lambda patches: network(patches) + 0.1
    )
    with torch.no_grad():
        torch.testing.assert_close(trusted(patches), expected + 0.1)


class Centered(nn.Module):
    """Adds a ramp that a trace keeps in the size of the patch it saw."""

    def forward(self, image):
        size = int(image.shape[-1])
        return image * torch.linspace(0, 1, size).sum()


@pytest.mark.parametrize("side", [16, 40])
def test_a_network_that_keeps_numbers_of_its_trace_is_traced_with_its_own_patch(side):
    patches = noise(1, 2, side, side, side)
    seen = OpenVinoNetwork(Centered().eval(), use_bf16=False)(patches)
    torch.testing.assert_close(seen, Centered()(patches), rtol=1e-4, atol=1e-4)


def counted(monkeypatch):
    """The patches with which networks are traced from now on."""
    traced = []
    convert = OpenVinoNetwork._convert
    monkeypatch.setattr(
        OpenVinoNetwork,
        "_convert",
        lambda self, shape: (traced.append(shape), convert(self, shape))[1],
    )
    return traced


def test_a_converted_network_holds_for_patches_of_other_lengths(monkeypatch, tmp_path):
    traced = counted(monkeypatch)
    network = UNet(1, 6, (4, 8)).eval()
    shapes = [(1, 1, 36, 40, 34), (1, 1, 48, 34, 40), (1, 1, 64, 64, 64)]
    compiled = OpenVinoNetwork(network, use_bf16=False, kept_in=tmp_path)
    seen = [compiled(noise(*shape)) for shape in shapes[:2]]
    again = OpenVinoNetwork(network, use_bf16=False, kept_in=tmp_path)
    seen.append(again(noise(*shapes[2])))
    assert traced == [(1, 1, 32, 32, 32)]
    for output, shape in zip(seen, shapes, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(output, network(noise(*shape)), atol=1e-4, rtol=1e-4)


def test_only_lengths_in_which_it_was_compared_may_change(monkeypatch, tmp_path):
    traced = counted(monkeypatch)
    network = UNet(1, 2, (4, 8)).eval()
    for shape in ((1, 1, 40, 40, 2), (1, 1, 48, 48, 4), (1, 1, 48, 48, 2)):
        OpenVinoNetwork(network, use_bf16=False, kept_in=tmp_path)(noise(*shape))
    assert traced == [(1, 1, 32, 32, 2), (1, 1, 32, 32, 4)]


def test_a_network_that_keeps_numbers_of_its_trace_is_traced_for_each_length(tmp_path):
    compiled = OpenVinoNetwork(Centered().eval(), use_bf16=False, kept_in=tmp_path)
    for side in (40, 48, 40):
        patches = noise(1, 2, side, side, side)
        torch.testing.assert_close(compiled(patches), Centered()(patches), rtol=1e-4, atol=1e-4)


def test_a_network_too_deep_for_a_small_patch_is_compiled(monkeypatch):
    monkeypatch.setattr(module, "SMALL_VOX", 1)
    network = NETWORKS["one"].eval()
    compiled = OpenVinoNetwork(network, use_bf16=False)
    patches = noise(1, 2, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(compiled(patches), network(patches), atol=1e-4, rtol=1e-4)
    assert compiled._infer[tuple(patches.shape)] != compiled._by_torch


def test_a_network_that_computed_reaches_another_process():
    compiled = OpenVinoNetwork(UNet(1, 2, (4, 8)).eval(), use_bf16=False)
    expected = compiled(noise(1, 1, 8, 8, 8))
    copied = pickle.loads(pickle.dumps(compiled))
    torch.testing.assert_close(copied(noise(1, 1, 8, 8, 8)), expected)


@pytest.mark.parametrize("name", ["one", "no head at all"])
def test_an_output_stays_when_the_next_is_computed(name):
    compiled = OpenVinoNetwork(NETWORKS[name].eval(), use_bf16=False)
    output = compiled(noise(1, 2, 8, 8, 8))
    before = output.clone()
    compiled(noise(1, 2, 8, 8, 8) + 1)
    assert torch.equal(output, before)


DROPPED_ELSEWHERE = """
import gc, os, signal, threading
import torch
from lesionwise.inference.openvino import OpenVinoNetwork
signal.signal(signal.SIGCHLD, lambda number, frame: print("handled"))
network = OpenVinoNetwork(torch.nn.Conv3d(1, 1, 3, padding=1).eval(), use_bf16=False)
held = [network]
del network
held[0](torch.zeros(1, 1, 8, 8, 8))
def drop():
    held.clear()
    gc.collect()
thread = threading.Thread(target=drop)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGCHLD)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks of Linux")
def test_a_network_dropped_by_another_thread_leaves_the_signals_of_the_first():
    """OpenVINO unmaps the signal stack of the main thread: the next signal ended the process.

    faulthandler gives the thread a stack for signals, as pytest does and as users do.
    """
    called = [sys.executable, "-X", "faulthandler", "-c", DROPPED_ELSEWHERE]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
