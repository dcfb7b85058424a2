"""Fitting batches that may not fit into memory, or hold an image that cannot be fitted."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import cv2
import torch

from depthfit.errors import DepthfitError

_log = logging.getLogger(__name__)
Image = TypeVar("Image")
Result = TypeVar("Result")
OUT_OF_MEMORY = "out_of_memory"


class DeviceError(DepthfitError):
    """The device of this process cannot be used any more; another process may do better."""


class HalvingFitter(Generic[Image, Result]):
    """Halves a batch that runs out of memory, and finds the one image that a fit fails on.

    Once a batch has been too big, later ones are cut to the size that worked.

    Args:
        fit: From images to a result each.
        isolate: Give an image that the fit fails on for another reason this reason as its result. Else the
            error is raised.

    Raises:
        DeviceError: In a call, where the GPU has failed.

    Attributes:
        limit: Images that a batch may have; halvings: how often one was halved for want of memory.
    """

    def __init__(self, fit: Callable[[list[Image]], Sequence[Result]], isolate: bool = True) -> None:
        self._fit, self._isolate = fit, isolate
        self.limit = math.inf
        self.halvings = 0

    def __call__(self, images: Sequence[Image]) -> list[Result | str]:
        """A result for each image, or why there is none."""
        if not images:
            return []
        if len(images) > self.limit:
            size = int(self.limit)
            parts = [images[k : k + size] for k in range(0, len(images), size)]
            return [result for part in parts for result in self(part)]
        try:
            return list(self._fit(list(images)))
        # Whatever one image makes a fit raise, the others must finish; it is logged and ends as a reason.
        except Exception as error:
            memory = is_out_of_memory(error)
            check_device(error)
            if not memory and not self._isolate:
                raise
            if not memory:
                _log.warning("a batch of %d images failed: %s", len(images), error, exc_info=True)
            if len(images) == 1:
                return [OUT_OF_MEMORY if memory else f"fit_error: {type(error).__name__}: {error}"]
        # Outside the handler: the traceback would hold the tensors that have to go.
        half = (len(images) + 1) // 2
        if memory:
            self.limit, self.halvings = half, self.halvings + 1
            _log.warning("out of memory with %d images; going on with %d", len(images), half)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return self(images[:half]) + self(images[half:])


def check_device(error: Exception) -> None:
    """Pass on an error after which all that follows in this process would fail as well.

    Raises:
        DeviceError: It is one.
    """
    if isinstance(error, _device_errors()) and not is_out_of_memory(error):
        fix = "What is finished is kept: run the same command again."
        raise DeviceError(f"the device failed: {str(error).splitlines()[0]}. {fix}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may go well: memory was asked for, of a GPU or of the system, and not had."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, _device_errors()):
        return str(error).startswith("CUDA error: out of memory")
    if isinstance(error, cv2.error) and getattr(error, "code", None) == cv2.Error.StsNoMem:
        return True
    # torch's CPU allocator raises a plain RuntimeError; so does torch, and OpenCV its own error, where a
    # container of C++ gets no memory.
    if isinstance(error, (RuntimeError, cv2.error)):
        return str(error) == "std::bad_alloc" or "DefaultCPUAllocator: can't allocate memory" in str(error)
    return False


def _device_errors() -> tuple[type[Exception], ...]:
    """What torch raises where a GPU has failed for the rest of a process; old versions do not name it."""
    found = getattr(torch, "AcceleratorError", None)
    return () if found is None else (found,)
