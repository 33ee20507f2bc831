"""A network computed by OpenVINO on the processor, in place of torch.

Plain torch is the reference; OpenVINO computes the same convolutions several times as fast.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from lesionwise.networks.blocks import Head
from lesionwise.types import InputError

Shape = tuple[int, int, int]


def has_openvino() -> bool:
    """True where the package is installed."""
    return importlib.util.find_spec("openvino") is not None


class Compiled:
    """A network in evaluation mode, compiled when the first patches come.

    Called with (B, C, I, J, K) float32 on the processor, it returns what the network returns.
    A ``Head`` at the network's end is computed by torch in float32, whatever the precision
    before it: half precision would round heatmaps to plateaus. Where several heads serve several
    resolutions, the first one's output is the network's.

    Args:
        network: its weights are read once, when the first patches come.
        low: compute in bfloat16 where the processor has it.
        threads: None takes torch's number.

    Raises:
        InputError: If OpenVINO is not installed.
    """

    def __init__(self, network: nn.Module, *, low: bool, threads: int | None = None) -> None:
        if not has_openvino():
            raise InputError("OpenVINO is not installed (pip install 'lesionwise[openvino]')")
        self.network = network
        self.low = low
        self.threads = threads
        self._infer: dict[tuple[int, ...], Callable[[torch.Tensor], torch.Tensor]] = {}

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        shape = tuple(patches.shape)
        if shape not in self._infer:
            self._infer[shape] = self._compile(shape)
        return self._infer[shape](patches)

    def _compile(self, shape: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
        import openvino

        heads = [module for module in self.network.modules() if isinstance(module, Head)]
        body = copy.deepcopy(self.network).eval()
        body.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for name, module in list(body.named_modules()):
            if isinstance(module, Head):
                parent, _, own = name.rpartition(".")
                setattr(body.get_submodule(parent), own, nn.Identity())
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),  # a caller's would be traced as casts
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # on tracing, which is what is wanted
            model = openvino.convert_model(body, example_input=torch.zeros(shape))
        model.reshape(list(shape))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.low else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": str(self.threads or torch.get_num_threads()),
        }
        request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

        def infer(patches: torch.Tensor) -> torch.Tensor:
            array = np.ascontiguousarray(patches.float().numpy())
            output = torch.from_numpy(np.array(request.infer([array])[0]))
            if not heads:
                return output
            with torch.autocast("cpu", enabled=False):
                return heads[0](output)  # type: ignore[no-any-return]

        return infer
