"""Structs of tensors act on all their tensors, also the nested ones, and on nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from depthfit.struct import TensorStruct, concatenate, where


@dataclasses.dataclass(frozen=True)
class Inner(TensorStruct):
    points: Tensor


@dataclasses.dataclass(frozen=True)
class Outer(TensorStruct):
    value: Tensor
    index: Tensor
    inner: Inner
    name: str = "a"
    missing: Tensor | None = None


def outer(start: int, count: int) -> Outer:
    index = torch.arange(start, start + count)
    return Outer(index.float(), index, Inner(index.float()[:, None, None].expand(count, 2, 3)))


def test_indexing_reaches_every_tensor() -> None:
    chosen = outer(0, 5)[torch.tensor([3, 1])]
    assert chosen.index.tolist() == [3, 1]
    assert chosen.inner.points[:, 1, 2].tolist() == [3, 1]
    assert (chosen.name, chosen.missing) == ("a", None)


def test_a_dtype_is_for_floating_point_tensors_alone() -> None:
    moved = outer(0, 2).to(dtype=torch.float64)
    assert moved.value.dtype == moved.inner.points.dtype == torch.float64
    assert moved.index.dtype == torch.int64


def test_concatenating_what_was_split_gives_it_back() -> None:
    whole = outer(0, 5)
    again = concatenate([whole[:2], whole[2:]])
    assert torch.equal(again.value, whole.value)
    assert torch.equal(again.inner.points, whole.inner.points)


def test_where_chooses_whole_rows() -> None:
    mask = torch.tensor([True, False, True])
    chosen = where(mask, outer(0, 3), outer(10, 3))
    assert chosen.index.tolist() == [0, 11, 2]
    assert chosen.inner.points[:, 0, 0].tolist() == [0, 11, 2]


def test_structs_do_not_change() -> None:
    struct = outer(0, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        struct.name = "b"
    assert struct.replace(name="b").name == "b"
    assert struct.name == "a"
