"""A network computed by OpenVINO on the CPU, in place of torch.

Plain torch is the reference; OpenVINO computes the same convolutions several times as fast.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

import lesionwise
from lesionwise.inference.converted import (
    Converted,
    import_openvino,
    key_of,
    openvino_core,
    read_converted,
    write_converted,
)
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
    """A network in evaluation mode, converted when the first patches come, compiled for each shape.

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
        at_once: calls that compute together when they come from several threads, each in its
            share of the threads, so that none waits for a core that does something else. At most
            one a thread.
        kept_in: folder where networks that were converted and agreed with torch are kept, and
            found again by a hash of weights, source, versions and processor, and of the shape where
            it matters; these are neither converted nor compared again. None keeps nothing.

    Raises:
        InputError: If OpenVINO is not installed.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        use_bf16: bool,
        threads: int | None = None,
        at_once: int = 1,
        kept_in: Path | None = None,
    ) -> None:
        if not has_openvino():
            raise InputError("OpenVINO is not installed (pip install 'lesionwise[openvino]')")
        self.network = network
        self.use_bf16 = use_bf16
        self.threads = torch.get_num_threads() if threads is None else threads
        self.at_once = min(at_once, self.threads)
        self.kept_in = kept_in
        self._infer: dict[tuple[int, ...], Callable[[torch.Tensor], Output]] = {}
        self._converted: dict[tuple[int | None, ...], Converted] = {}
        self._compiling = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """As another process gets it: it compiles for itself."""
        return {**self.__dict__, "_infer": {}, "_converted": {}, "_compiling": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _compiling=threading.Lock())

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the network is called with besides patches (``inference.window.call_network``)."""
        return tuple(getattr(self.network, "conditions", ()))

    def __call__(self, patches: torch.Tensor, **conditions: torch.Tensor) -> Any:
        if self.conditions or has_dropout_on(self.network):
            return self.network(patches, **conditions)
        shape = tuple(patches.shape)
        if shape not in self._infer:
            with self._compiling:  # calls from other threads wait, and compile nothing
                if shape not in self._infer:
                    return self._first(patches)
        return self._infer[shape](patches)

    def _first(self, patches: torch.Tensor) -> Output:
        """The output for the first patches of a shape, and who computes those that follow.

        OpenVINO does, or torch where they differ on the first patch.
        """
        shape = tuple(patches.shape)
        # Tracing costs several times a patch, so a small one is tried first. A network may be too
        # deep for it, need one size, or keep numbers of it.
        small = (1, shape[1], *(min(n, SMALL_VOX) for n in shape[2:]))
        for traced in dict.fromkeys((small, shape)):
            kept = self._kept(shape, traced)
            # What is kept but is not what its record says is made again.
            with contextlib.suppress(RuntimeError, ValueError, AttributeError):
                if kept is not None:
                    infer = self._compiled(kept, shape)
                    output = infer(patches)
                    self._infer[shape] = infer
                    return output
        most = MAX_DIFFERENCE["bf16" if self.use_bf16 else "f32"]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.use_bf16):
            expected = self._by_torch(patches[:1].float())
        for traced in dict.fromkeys((small, shape)):
            try:
                converted = self._convert(traced)
                infer = self._compiled(converted, shape)
                output = infer(patches)
                if difference(tuple(each[:1] for each in _as_tuple(output)), expected) > most:
                    continue
            except (RuntimeError, ValueError):
                continue
            self._keep(converted, shape, traced)
            self._infer[shape] = infer
            return output
        logging.getLogger("lesionwise").warning(
            "OpenVINO does not compute this network as torch does; torch computes it, more slowly"
        )
        self._infer[shape] = self._by_torch
        return self._by_torch(patches)

    def _kept(self, shape: tuple[int, ...], traced: tuple[int, ...]) -> Converted | None:
        """The network that was traced with patches of one shape and holds for those of another."""
        known = _shapes(shape, traced)
        if known not in self._converted and self.kept_in is not None:
            found = read_converted(self.kept_in, self._key(known))
            if found is not None:
                self._converted[known] = found
        return self._converted.get(known)

    def _keep(self, converted: Converted, shape: tuple[int, ...], traced: tuple[int, ...]) -> None:
        known = _shapes(shape, traced)
        self._converted[known] = converted
        if self.kept_in is not None:
            write_converted(converted, self.kept_in, self._key(known))

    def _key(self, shapes: tuple[int | None, ...]) -> str:
        """By which the converted network is found again."""
        settings = {
            "shapes": shapes,
            "use_bf16": self.use_bf16,
            "heads_take": "channels last",
            # another processor may compute in another way
            "processor": openvino_core().get_property("CPU", "FULL_DEVICE_NAME"),
            "lesionwise": lesionwise.__version__,
            **{name: version(name) for name in ("torch", "openvino")},
        }
        return key_of(self.network, settings)

    def _by_torch(self, patches: torch.Tensor) -> Output:
        with torch.no_grad():
            return self.network(patches)  # type: ignore[no-any-return]

    def _convert(self, traced: tuple[int, ...]) -> Converted:
        """The network, traced with one patch."""
        openvino = import_openvino()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),  # a caller's would be traced as casts
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # on tracing, which is what is wanted
            network = _contiguous(self.network)
            body, heads, several = _without_heads(network, traced)
            if heads:
                body = _ChannelsLast(body)
            # torch's check of its trace is left out: it takes longer than the trace, and what is
            # compiled is compared with the network anyway
            trace = torch.jit.trace(  # type: ignore[no-untyped-call]
                body, torch.zeros(traced), check_trace=False
            )
            # it prints its arguments where those of the command have a --verbose
            with contextlib.redirect_stdout(io.StringIO()):
                model = openvino.convert_model(trace)
        return Converted(model, heads, several)

    def _compiled(
        self, converted: Converted, shape: tuple[int, ...]
    ) -> Callable[[torch.Tensor], Output]:
        """What computes the network's output for patches of the shape."""
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.use_bf16 else "f32",
            "INFERENCE_NUM_THREADS": str(self.threads),
            **(
                {"PERFORMANCE_HINT": "LATENCY"}
                if self.at_once == 1
                else {"NUM_STREAMS": str(self.at_once)}
            ),
        }
        model = converted.model
        if len(model.inputs) != 1:
            raise ValueError("the converted network takes something else")
        model.reshape(list(shape))
        with torch.inference_mode(False):
            heads = [_contiguous(self.network.get_submodule(name)) for name in converted.heads]
        heads = heads or [_Copied() for _ in model.outputs]
        if len(heads) != len(model.outputs):
            raise ValueError("the converted network has another number of outputs")
        compiled = openvino_core().compile_model(model, "CPU", options)
        free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.at_once):
            free.put(compiled.create_infer_request())

        def infer(patches: torch.Tensor) -> Output:
            request = free.get()
            try:
                # Views of OpenVINO's memory, which the request's next call writes into; heads make
                # new tensors.
                results = request.infer(
                    [np.ascontiguousarray(patches.float().numpy())], share_outputs=True
                )
                arrays = [torch.from_numpy(results[place]) for place in range(len(heads))]
                if converted.heads:
                    arrays = [array.movedim(-1, 1) for array in arrays]
                with torch.autocast("cpu", enabled=False):
                    outputs = tuple(head(array) for head, array in zip(heads, arrays, strict=True))
            finally:
                free.put(request)
            return outputs if converted.several else outputs[0]

        return infer


def _shapes(shape: tuple[int, ...], traced: tuple[int, ...]) -> tuple[int | None, ...]:
    """The shapes for which a traced network holds that agreed with torch for one of them.

    Where the two differ, the number does not matter: None. Elsewhere it may.

    Example:
        >>> _shapes((4, 1, 96, 96, 1), (1, 1, 32, 32, 1))
        (None, 1, None, None, 1)
    """
    return tuple(None if n != m else n for n, m in zip(shape, traced, strict=True))


class _ChannelsLast(nn.Module):
    """What the heads take, (B, I, J, K, C).

    So OpenVINO holds it and torch computes a head fastest: in the usual order OpenVINO would move
    every number, and a head would take several times as long.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: torch.Tensor) -> Output:
        output = self.body(image)
        if isinstance(output, tuple):
            return tuple(each.movedim(1, -1) for each in output)
        return output.movedim(1, -1)  # type: ignore[no-any-return]


class _Copied(nn.Module):
    """In place of a head, where an output is OpenVINO's own."""

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        return output.clone()


def _contiguous(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode, its weights in torch's plain memory format."""
    copied = copy.deepcopy(module).eval()
    copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return copied


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
) -> tuple[nn.Module, tuple[str, ...], bool]:
    """A network without the heads that make its outputs, their names, and whether it is a tuple.

    The network itself and no names, if an output comes from something else or a head's output is
    used within the network too.
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
    names = [next((n for n, tensor in made if tensor is output), None) for output in outputs]
    found = tuple(name for name in names if name is not None)
    if len(found) < len(names):
        return network, (), several
    body = copy.deepcopy(network)
    heads = [network.get_submodule(name) for name in found]
    for name in found:
        parent, _, own = name.rpartition(".")
        setattr(body.get_submodule(parent), own, nn.Identity())
    try:
        seen = [head(x) for head, x in zip(heads, _as_tuple(body(image)), strict=True)]
        same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, outputs, strict=True))
    except (RuntimeError, ValueError):  # a shape that only the head's output has
        same = False
    return (body, found, several) if same else (network, (), several)


def _as_tuple(output: Output) -> tuple[torch.Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)
