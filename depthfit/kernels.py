"""Which of two ways to compute: plain torch, the reference, or Triton kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

_plain = False


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return find_spec("triton") is not None


def use_triton(like: Tensor) -> bool:
    """Whether tensors like this one go to the Triton kernels: float32 on CUDA, with Triton installed, and no
    gradient asked for, which kernels do not give. An error of a kernel is an error; nothing falls back.
    """
    ready = like.is_cuda and like.dtype == torch.float32 and not torch.is_grad_enabled()
    return ready and not _plain and _has_triton()


@contextmanager
def plain_torch() -> Iterator[None]:
    """Plain torch everywhere within the block: the reference, to compare with."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before
