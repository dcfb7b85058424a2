"""Reading in threads, one batch ahead of whoever works on the batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")


def batches_ahead(
    names: Sequence[str],
    read: Callable[[str], Item],
    people: Callable[[Item], int],
    batch: int,
    threads: int,
) -> Generator[list[Item], None, None]:
    """What ``read`` makes of each name, in order, in batches of at least ``batch`` people but for the last.

    While a batch is worked on, the next one is read: no more than that, and one item a thread. An error of
    ``read`` is raised in place of the batch that it belongs to.

    Args:
        names: What to read.
        read: Called in a thread, where torch has one thread of its own.
        people: Of an item; may be 0.
        batch: People of a batch.
        threads: That read at a time; 1 reads in order.
    """
    with _Reader(names, read, threads) as reader, ThreadPoolExecutor(1) as side:

        def gather() -> list[Item]:
            items: list[Item] = []
            count = 0
            for item in reader:
                items.append(item)
                count += people(item)
                if count >= batch:
                    break
            return items

        coming = side.submit(gather)
        try:
            while items := coming.result():
                coming = side.submit(gather)
                yield items
        finally:
            reader.stop()


class _Reader(Iterator[Item]):
    """Items in order, as many at a time as there are threads."""

    def __init__(self, names: Sequence[str], read: Callable[[str], Item], threads: int) -> None:
        self._names, self._read, self._threads = iter(names), read, threads
        self._running: deque[Future[Item]] = deque()

    def __enter__(self) -> _Reader[Item]:
        # torch keeps the number for each thread, but takes what was set last for threads that are new to it.
        self._before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pool.shutdown()
        torch.set_num_threads(self._before)

    def __next__(self) -> Item:
        for name in islice(self._names, self._threads - len(self._running)):
            self._running.append(self._pool.submit(self._read, name))
        if not self._running:
            raise StopIteration
        return self._running.popleft().result()

    def stop(self) -> None:
        """Begin no other."""
        self._names = iter(())
        self._pool.shutdown(wait=False, cancel_futures=True)
