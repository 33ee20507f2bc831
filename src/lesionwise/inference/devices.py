"""Where networks compute."""

from __future__ import annotations

import torch

from lesionwise.types import InputError


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU where there is none.

    Of several ("cuda:0,1") it is the first.

    Raises:
        InputError: If there is no such device.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    name = name.partition(",")[0]
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name}: no such device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name}: no GPU found here")
    return device


def devices_of(name: str) -> tuple[torch.device, list[int]]:
    """The first of several devices, and the numbers of all: "cuda:0,1,2" trains on three.

    "cpu:0,1" trains in two processes on the CPU. One device has one number.

    Raises:
        InputError: If there is no such device.

    Example:
        >>> devices_of("cpu:0,1")
        (device(type='cpu', index=0), [0, 1])
    """
    kind, colon, numbers = name.partition(":")
    if "," not in numbers:
        device = device_of(name)
        return device, [device.index or 0]
    try:
        indices = [int(number) for number in numbers.split(",")]
    except ValueError as error:
        raise InputError(f"device {name}: write several as {kind}{colon}0,1") from error
    first = device_of(f"{kind}:{indices[0]}")
    if first.type == "cuda" and max(indices) >= torch.cuda.device_count():
        raise InputError(f"device {name}: there are {torch.cuda.device_count()} GPUs")
    return first, indices


def supports_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 is native, so that it saves time.

    Example:
        >>> supports_bfloat16(torch.device("cpu")) in (True, False)
        True
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())
