"""Robust kernels on squared residual norms, for iteratively reweighted least squares.

A kernel maps s = |r|^2 to rho(s), with rho(0) = 0 and rho'(0) = 1. The cost is half the sum of rho, the
weight of a row in the normal equations is rho'(s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Kernel(Protocol):
    """A robust kernel; both functions act elementwise on squared norms."""

    def value(self, squared: Tensor) -> Tensor: ...

    def weight(self, squared: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Quadratic:
    """No robustness: rho(s) = s."""

    def value(self, squared: Tensor) -> Tensor:
        return squared

    def weight(self, squared: Tensor) -> Tensor:
        return torch.ones_like(squared)


@dataclass(frozen=True)
class GemanMcClure:
    """rho(s) = s / (1 + s / c^2): bounded by c^2, so that an outlier has no more pull at all.

    Source: Geman & McClure, "Statistical methods for tomographic image reconstruction" (1987).

    Attributes:
        scale: c, in sigmas; a number, or a () tensor.
    """

    scale: float | Tensor

    def value(self, squared: Tensor) -> Tensor:
        return squared / (1 + squared / self.scale**2)

    def weight(self, squared: Tensor) -> Tensor:
        return (1 + squared / self.scale**2) ** -2
