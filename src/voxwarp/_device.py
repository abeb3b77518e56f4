"""The device on which networks run, and their precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .errors import InputError


def torch_device(name: str) -> torch.device:
    """The PyTorch device for a name; "auto" is a GPU if PyTorch finds one, else the CPU.

    Args:
        name: "auto", "cpu" or "cuda".

    Raises:
        InputError: the name is another one, or PyTorch finds no CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: PyTorch finds no CUDA device; use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """The name of the GPU, or "cpu"."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def channels_last(network: nn.Module) -> nn.Module:
    """Store the weights of a network channels-last, in place: its convolutions are faster."""
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


@contextmanager
def bfloat16_convolutions(device: torch.device) -> Iterator[None]:
    """Use bf16 autocast if the hardware multiplies bf16 natively, else float32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device)):
        yield


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
