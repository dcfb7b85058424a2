"""What stands between the body and its evidence: clothes, and the depth map's smooth error."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from depthfit.fit.config import FitConfig
from depthfit.joints import NUM_JOINTS

NUM_CLOTHES = 1 + NUM_JOINTS
CORRELATION = 1.7
"""Errors of neighbouring pixels, outline points and joints are correlated beyond what the model knows, so the
Hessian is too sure, by this factor in standard deviation. Calibrated on synthetic scenes (seeds 100 to 105),
where 68 % intervals of focal and distance then held about 68 % of the truths (73 to 74 % since depth and
outline are trusted to 2 sigmas). The camera's priors gain the same weight, lest rows that say one thing twice
outvote them."""

COMMON_ERROR = 0.3
"""Correlation of the errors that the people of an image make of their common camera. Calibrated on synthetic
images of two and four people (seeds 101 and 102): taken as independent, 68 % intervals of their focal held
55 %."""


def clothes_cover(weights: Tensor) -> Tensor:
    """Share of each clothes amplitude at points with skinning ``weights`` (..., 24): (..., C). The first is
    worn everywhere, the others each on one part."""
    return torch.cat([torch.ones_like(weights[..., :1]), weights], -1)


def clothes_prior(config: FitConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sigma (C,) m of the clothes' amplitudes."""
    mean = torch.tensor([config.body.clothes_cm] + [0.0] * NUM_JOINTS) / 100
    sigma = torch.tensor([config.body.clothes_sigma_cm] + [config.body.garment_sigma_cm] * NUM_JOINTS) / 100
    return mean.to(like), sigma.to(like)


def field_orders(order: int) -> list[tuple[int, int]]:
    """Orders (i, j) of the field's cosines with 0 < i + j <= order; the constant is the depth scale's."""
    return [(i, j) for i in range(order + 1) for j in range(order + 1) if 0 < i + j <= order]


def field_spectrum(config: FitConfig) -> Tensor:
    """(K,) prior sigmas that fall as 1 / (i + j) and sum in quadrature to ``field_sigma``."""
    orders = field_orders(config.depth.field_order)
    if config.depth.field_sigma <= 0 or not orders:
        return torch.zeros(0)
    raw = torch.tensor([1.0 / (i + j) for i, j in orders])
    return config.depth.field_sigma * raw / raw.norm()


def field_basis(place: Tensor, config: FitConfig) -> Tensor:
    """Cosines at window coordinates ``place`` (..., 2) in [0, 1], unit mean square: (..., K)."""
    if config.depth.field_sigma <= 0 or config.depth.field_order < 1:
        return place.new_zeros(*place.shape[:-1], 0)
    across, down, size = _field_waves(config.depth.field_order, place.dtype, place.device)
    order = torch.arange(config.depth.field_order + 1, dtype=place.dtype, device=place.device)
    waves = torch.cos(math.pi * place[..., None] * order)  # (..., 2, orders)
    return waves[..., 0, :].index_select(-1, across) * waves[..., 1, :].index_select(-1, down) * size


@cache
def _field_waves(order: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(K,) orders across and down of each cosine, and the factor that makes its mean square one."""
    orders = field_orders(order)
    size = [math.sqrt((2 if i else 1) * (2 if j else 1)) for i, j in orders]
    across, down = (torch.tensor(side, device=device) for side in zip(*orders, strict=True))
    return across, down, torch.tensor(size, dtype=dtype, device=device)
