"""Reading ahead: what is read, in which order, how far ahead, and whose errors."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from depthfit.run.ahead import batches_ahead

NAMES = [str(k) for k in range(30)]


def slow(name: str) -> int:
    """Later names are ready sooner."""
    time.sleep(0.004 * (3 - int(name) % 4))
    return int(name)


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_are_full_and_in_order(threads: int) -> None:
    found = list(batches_ahead(NAMES, slow, lambda k: k % 3, 5, threads))
    assert [k for batch in found for k in batch] == list(range(30))
    for batch in found[:-1]:
        counts = [k % 3 for k in batch]
        assert sum(counts) >= 5 > sum(counts[:-1])


def test_the_next_batch_is_read_meanwhile_and_no_more() -> None:
    began: list[int] = []
    second = threading.Event()

    def read(name: str) -> int:
        began.append(int(name))
        if len(began) == 10:
            second.set()
        return int(name)

    batches = batches_ahead(NAMES, read, lambda _: 1, 5, 3)
    next(batches)
    assert second.wait(60), "the second batch is not read while the first one is worked on"
    # Time for threads that read more than they should; a slow machine hides them, but fails nothing.
    time.sleep(0.2)
    assert len(began) <= 2 * 5 + 3
    batches.close()
    time.sleep(0.05)
    assert len(began) <= 2 * 5 + 3, "it reads on although nobody wants it"


def test_an_error_waits_for_its_batch() -> None:
    def read(name: str) -> int:
        if name == "7":
            raise ValueError("file 7")
        return int(name)

    batches = batches_ahead(NAMES, read, lambda _: 1, 5, 4)
    assert next(batches) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="file 7"):
        next(batches)


def test_reading_threads_have_one_of_torch_s_and_the_others_keep_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = []
        for batch in batches_ahead(NAMES[:4], lambda _: torch.get_num_threads(), lambda _: 1, 2, 2):
            found += [*batch, torch.get_num_threads()]
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert found == [1, 1, 3, 1, 1, 3]
        assert later == [3]
    finally:
        torch.set_num_threads(before)
