"""Frozen dataclasses of tensors that move, index and stack as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound="TensorStruct")


@dataclasses.dataclass(frozen=True)
class TensorStruct:
    """Base of frozen dataclasses whose tensor fields share leading axes.

    Fields that are not tensors (or are ``None``) are carried along unchanged.
    """

    def map(self: T, fn: Callable[[Tensor], Tensor]) -> T:
        """Apply ``fn`` to every tensor field, also inside nested structs."""

        def visit(value: Any) -> Any:
            if isinstance(value, Tensor):
                return fn(value)
            if isinstance(value, TensorStruct):
                return value.map(fn)
            return value

        changes = {f.name: visit(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **changes)

    def to(self: T, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> T:
        """Move to ``device``; ``dtype`` is applied to floating-point tensors alone."""
        return self.map(lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None))

    def __getitem__(self: T, index: Any) -> T:
        """Index the leading axis of every tensor field."""
        return self.map(lambda t: t[index])

    def replace(self: T, **changes: Any) -> T:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def concatenate(items: Sequence[T]) -> T:
    """Concatenate structs of one type along the leading axis of every tensor field."""
    return _combine(items, lambda tensors: torch.cat(tensors, dim=0))


def where(mask: Tensor, new: T, old: T) -> T:
    """Choose ``new`` rows where ``mask`` (N,) is true and ``old`` rows elsewhere."""
    return _combine([new, old], lambda pair: _where_rows(mask, pair[0], pair[1]))


def scatter(rows: Tensor, new: T, old: T) -> T:
    """``old`` with its ``rows`` (M,) replaced by the M rows of ``new``."""
    return _combine([old, new], lambda pair: pair[0].index_copy(0, rows, pair[1]))


def _where_rows(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    if new is old:
        return old
    return torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _combine(items: Sequence[T], fn: Callable[[list[Tensor]], Tensor]) -> T:
    first = items[0]
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(first):
        values = [getattr(item, field.name) for item in items]
        if isinstance(values[0], Tensor):
            changes[field.name] = fn(values)
        elif isinstance(values[0], TensorStruct):
            changes[field.name] = _combine(values, fn)
    return dataclasses.replace(first, **changes)


def copy_into(target: T, source: T) -> None:
    """Overwrite every tensor of ``target`` with that of ``source``, in place. Where the source has fewer
    rows, its last one fills up."""
    for field in dataclasses.fields(target):
        to, value = getattr(target, field.name), getattr(source, field.name)
        if isinstance(to, Tensor):
            to[: len(value)].copy_(value)
            if len(value) < len(to):
                to[len(value) :].copy_(value[-1:])
        elif isinstance(to, TensorStruct):
            copy_into(to, value)
