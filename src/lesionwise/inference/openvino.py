"""A network computed by OpenVINO on the CPU, in place of torch.

Plain torch is the reference; OpenVINO computes the same convolutions several times as fast.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from lesionwise.inference.views import has_dropout_on
from lesionwise.networks.blocks import Head
from lesionwise.types import InputError

Output: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]


MAX_DIFFERENCE = {"f32": 1e-3, "bf16": 0.1}
"""Root mean square of the difference from torch, as a share of that of torch's output."""

SMALL_VOX = 32
"""Side of the patch on which a network is traced first."""


def has_openvino() -> bool:
    """True where the package is installed.

    Example:
        >>> engine = "openvino" if has_openvino() else "torch"
        >>> engine in ("openvino", "torch")
        True
    """
    return importlib.util.find_spec("openvino") is not None


class OpenVinoNetwork:
    """A network in evaluation mode, compiled when the first patches of each shape come.

    Called with (B, C, I, J, K) float32 on the CPU, it returns what the network returns: a tensor
    or a tuple. Every ``Head`` that makes an output is computed by torch in float32, whatever the
    precision before it: half precision would round heatmaps to plateaus. Networks that end
    otherwise are compiled whole.

    A network with ``conditions``, or with dropout on, is computed by torch. So are patches of a
    shape for which OpenVINO cannot compile it, or whose first ones differ from torch's answer by
    more than ``MAX_DIFFERENCE``; a line in the log ``lesionwise`` says so.

    Args:
        network: its weights are read when it is compiled, and not again.
        use_bf16: compute in bfloat16 where the CPU has it.
        threads: None takes torch's number.

    Raises:
        InputError: If OpenVINO is not installed.
    """

    def __init__(self, network: nn.Module, *, use_bf16: bool, threads: int | None = None) -> None:
        if not has_openvino():
            raise InputError("OpenVINO is not installed (pip install 'lesionwise[openvino]')")
        self.network = network
        self.use_bf16 = use_bf16
        self.threads = threads
        self._infer: dict[tuple[int, ...], Callable[[torch.Tensor], Output]] = {}

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the network is called with besides patches (``inference.window.call_network``)."""
        return tuple(getattr(self.network, "conditions", ()))

    def __call__(self, patches: torch.Tensor, **conditions: torch.Tensor) -> Any:
        if self.conditions or has_dropout_on(self.network):
            return self.network(patches, **conditions)
        infer = self._infer.get(tuple(patches.shape))
        return infer(patches) if infer else self._first(patches)

    def _first(self, patches: torch.Tensor) -> Output:
        """The output for the first patches of a shape, and who computes those that follow.

        OpenVINO does, or torch where they differ on the first patch.
        """
        shape = tuple(patches.shape)
        small = (1, shape[1], *(min(n, SMALL_VOX) for n in shape[2:]))
        most = MAX_DIFFERENCE["bf16" if self.use_bf16 else "f32"]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bf16):
            expected = self._by_torch(patches[:1].float())
        # Tracing costs several times a patch, so a small one is tried first. A network may be too
        # deep for it, need one size, or keep numbers of it.
        for traced in dict.fromkeys((small, shape)):
            try:
                compiled = self._compile(shape, traced)
                output = compiled(patches)
                if difference(tuple(each[:1] for each in _as_tuple(output)), expected) <= most:
                    self._infer[shape] = compiled
                    return output
            except (RuntimeError, ValueError):
                continue
        logging.getLogger("lesionwise").warning(
            "OpenVINO does not compute this network as torch does; torch computes it, more slowly"
        )
        self._infer[shape] = self._by_torch
        return self._by_torch(patches)

    def _by_torch(self, patches: torch.Tensor) -> Output:
        with torch.no_grad():
            return self.network(patches)  # type: ignore[no-any-return]

    def _compile(
        self, shape: tuple[int, ...], traced: tuple[int, ...]
    ) -> Callable[[torch.Tensor], Output]:
        """The network for patches of a shape, traced with one of another."""
        openvino = _import_openvino()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),  # a caller's would be traced as casts
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # on tracing, which is what is wanted
            network = copy.deepcopy(self.network).eval()
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            body, heads, several = _without_heads(network, traced)
            # torch's check of its trace is left out: it takes longer than the trace, and what is
            # compiled is compared with the network anyway
            trace = torch.jit.trace(  # type: ignore[no-untyped-call]
                body, torch.zeros(traced), check_trace=False
            )
            # it prints its arguments where those of the command have a --verbose
            with contextlib.redirect_stdout(io.StringIO()):
                model = openvino.convert_model(trace)
        model.reshape(list(shape))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.use_bf16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": str(self.threads or torch.get_num_threads()),
        }
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

        def infer(patches: torch.Tensor) -> Output:
            results = request.infer([np.ascontiguousarray(patches.float().numpy())])
            with torch.autocast("cpu", enabled=False):
                outputs = tuple(
                    head(torch.from_numpy(np.array(results[place])))
                    for place, head in enumerate(heads)
                )
            return outputs if several else outputs[0]

        return infer


@torch.no_grad()
def difference(computed: Output, expected: Output) -> float:
    """The largest relative root mean square difference of the tensors of two outputs.

    Infinite where one of them is not finite or shapes differ; 0 where both are 0.

    Example:
        >>> round(difference(torch.tensor([3.0, 3.3]), torch.tensor([3.0, 3.0])), 3)
        0.071
    """
    worst = 0.0
    for seen, right in zip(_as_tuple(computed), _as_tuple(expected), strict=True):
        if seen.shape != right.shape or not bool(torch.isfinite(seen).all()):
            return float("inf")
        apart = float((seen.float() - right.float()).square().mean().sqrt())
        scale = float(right.float().square().mean().sqrt())
        worst = max(worst, apart / scale if scale else (float("inf") if apart else 0.0))
    return worst


def _without_heads(
    network: nn.Module, shape: tuple[int, ...]
) -> tuple[nn.Module, list[nn.Module], bool]:
    """A network without the heads that make its outputs, those heads, and whether it is a tuple.

    The network itself with identities for heads, if an output comes from something else or a
    head's output is used within the network too.
    """
    image = torch.randn((1, *shape[1:]), generator=torch.Generator().manual_seed(0))
    made: list[tuple[str, torch.Tensor]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, given, output, name=name: made.append((name, output))
        )
        for name, module in network.named_modules()
        if name and isinstance(module, Head)
    ]
    expected = network(image)
    for hook in hooks:
        hook.remove()
    several = isinstance(expected, tuple)
    outputs = _as_tuple(expected)
    nothing: list[nn.Module] = [nn.Identity() for _ in outputs]
    names = [next((n for n, tensor in made if tensor is output), None) for output in outputs]
    if None in names:
        return network, nothing, several
    body = copy.deepcopy(network)
    heads = [network.get_submodule(name) for name in names if name is not None]
    for name in names:
        parent, _, own = str(name).rpartition(".")
        setattr(body.get_submodule(parent), own, nn.Identity())
    try:
        seen = [head(x) for head, x in zip(heads, _as_tuple(body(image)), strict=True)]
        same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, outputs, strict=True))
    except (RuntimeError, ValueError):  # a shape that only the head's output has
        same = False
    return (body, heads, several) if same else (network, nothing, several)


def _as_tuple(output: Output) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)


def _import_openvino() -> Any:
    """OpenVINO without its telemetry, which looks up a host and writes to the home folder.

    OpenVINO takes a stub of its own where ``openvino_telemetry`` cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
