"""Which of two ways to compute: plain torch, the reference, or Triton kernels where they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from depthfit.errors import DepthfitError

_asked, _plain = False, False


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return find_spec("triton") is not None


def use_triton(like: Tensor) -> bool:
    """Whether tensors like this one go to the Triton kernels: within :func:`triton_kernels`, float32 on CUDA,
    and no gradient wanted, which kernels do not give. An error of a kernel is an error; nothing falls back.
    """
    ready = like.is_cuda and like.dtype == torch.float32 and not torch.is_grad_enabled()
    return ready and _asked and not _plain


@contextmanager
def triton_kernels(asked: bool = True) -> Iterator[None]:
    """Triton kernels within the block, where they can be used and no :func:`plain_torch` forbids them.

    Raises:
        DepthfitError: Triton is not installed.
    """
    global _asked
    if asked and not _has_triton():
        raise DepthfitError("solver.kernels needs Triton (`pip install triton`), or solver.kernels=false")
    before, _asked = _asked, asked
    try:
        yield
    finally:
        _asked = before


@contextmanager
def plain_torch() -> Iterator[None]:
    """Plain torch everywhere within the block: the reference, to compare with."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before
