"""Work in batches of the size that the device's memory allows."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_log = logging.getLogger(__name__)
LARGEST = 16
ROOM = 0.8
"""Share of the free memory that a larger batch may fill."""
THREADS = min(os.cpu_count() or 1, 8)
"""Cores that get images ready for a network, or write what it made of them."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_batches(
    items: Sequence[Item],
    compute: Callable[[list[Item]], list[Result]],
    device: torch.device,
    batch: int | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order.

    Args:
        items: What to work on.
        compute: Results of a batch.
        device: Where it computes.
        batch: Items together. ``None`` finds out on a GPU: the first alone, then as many as its peak memory
            lets fit; one by one on a CPU, where batches gain nothing.

    Raises:
        torch.OutOfMemoryError: One item alone does not fit.
    """
    size, measured = (batch, True) if batch is not None else (1, device.type != "cuda")
    start = 0
    while start < len(items):
        chunk = list(items[start : start + size])
        used = 0 if measured else _begin(device)
        try:
            results = compute(chunk)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = max(1, size // 2)
            _log.warning("the GPU's memory is full: going on with batches of %d", size)
            free_memory(device)
            continue
        yield from zip(chunk, results, strict=True)
        start += len(chunk)
        if not measured:
            size, measured = _fitting(device, used), True


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results of decoding, resampling and the like, which keep a GPU waiting if one core does them alone."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(len(items), THREADS)) as pool:
        return list(pool.map(function, items))


def free_memory(device: torch.device) -> None:
    """Give a GPU's memory back that a network held which is no longer used. On a CPU it is free already."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def _begin(device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _fitting(device: torch.device, used: int) -> int:
    """How many items fit, by what one took on top of ``used`` bytes."""
    each = max(torch.cuda.max_memory_allocated(device) - used, 1)
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(int(ROOM * free / each), LARGEST))
