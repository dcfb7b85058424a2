"""Where a run computes."""

from __future__ import annotations

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
