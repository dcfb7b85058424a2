from __future__ import annotations

import pytest
import torch

from depthfit.perception.batches import LARGEST, in_batches

CPU = torch.device("cpu")


def test_one_by_one_on_a_cpu_and_in_order() -> None:
    sizes: list[int] = []

    def square(chunk: list[int]) -> list[int]:
        sizes.append(len(chunk))
        return [k * k for k in chunk]

    assert list(in_batches(range(5), square, CPU)) == [(k, k * k) for k in range(5)]
    assert sizes == [1] * 5


def test_a_batch_that_does_not_fit_is_halved(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def at_most_two(chunk: list[int]) -> list[int]:
        sizes.append(len(chunk))
        if len(chunk) > 2:
            raise torch.OutOfMemoryError("no room")
        return chunk

    assert list(in_batches(range(7), at_most_two, CPU, batch=8)) == [(k, k) for k in range(7)]
    assert sizes == [7, 4, 2, 2, 2, 1]
    assert "batches of 2" in caplog.text


def test_one_item_that_does_not_fit_is_an_error() -> None:
    def never(chunk: list[int]) -> list[int]:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_batches([1], never, CPU, batch=4))


@pytest.mark.gpu
def test_batches_grow_to_the_memory_of_the_gpu() -> None:
    device, sizes = torch.device("cuda"), list[int]()
    free = torch.cuda.mem_get_info(device)[0]

    def takes(chunk: list[int]) -> list[int]:
        sizes.append(len(chunk))
        torch.empty(len(chunk) * free // 10, dtype=torch.uint8, device=device)
        return chunk

    assert [k for k, _ in in_batches(range(20), takes, device)] == list(range(20))
    assert sizes[0] == 1
    assert 5 <= sizes[1] <= min(9, LARGEST)
