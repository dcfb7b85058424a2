"""Where a run computes."""

from __future__ import annotations

import os

import torch

from depthfit.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes a GPU where torch sees one.

    Raises:
        InputError: There is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("command line", "device", repr(name), "Use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        fix = "torch sees no CUDA device here: use device=cpu or device=auto."
        raise InputError("command line", "device", name, fix)
    return device


def start_peak(device: torch.device) -> None:
    """Begin to measure :func:`peak_memory` anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that torch held at most since :func:`start_peak`; ``None`` for a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def cores_here() -> int:
    """Cores that this process may use, where the system tells; else those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
