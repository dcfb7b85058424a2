"""Meshes and cameras for the tests of the rasteriser and of the pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def sphere(rings: int, center: tuple[float, float, float], radius: float) -> tuple[Tensor, Tensor]:
    """A UV sphere: vertices (V, 3), faces (F, 3) counter-clockwise seen from outside."""
    theta = torch.linspace(0, torch.pi, rings + 1, dtype=torch.float64)
    phi = torch.arange(2 * rings, dtype=torch.float64) * torch.pi / rings
    t, p = torch.meshgrid(theta[1:-1], phi, indexing="ij")
    grid = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], -1).reshape(-1, 3)
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    vertices = torch.cat([grid, poles]) * radius + torch.tensor(center, dtype=torch.float64)
    columns = torch.arange(2 * rings)
    right = (columns + 1) % (2 * rings)
    top, bottom = len(grid), len(grid) + 1
    faces = [torch.stack([torch.full_like(columns, top), columns, right], -1)]
    for row in range(rings - 2):
        a, b = row * 2 * rings + columns, row * 2 * rings + right
        c, d = a + 2 * rings, b + 2 * rings
        faces += [torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)]
    last = (rings - 2) * 2 * rings
    faces.append(torch.stack([last + columns, torch.full_like(columns, bottom), last + right], -1))
    return vertices, torch.cat(faces)


def triangle_soup(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unconnected triangles of many sizes in front of, beside, across and behind the camera."""
    rng = torch.Generator().manual_seed(seed)
    center = torch.randn(count, 1, 3, generator=rng) * torch.tensor([1.0, 0.8, 1.5])
    center = center + torch.tensor([0.0, 0.0, 3.0])
    size = 10 ** (torch.rand(count, 1, 1, generator=rng) * 2 - 1.7)
    vertices = (center + torch.randn(count, 3, 3, generator=rng) * size).reshape(-1, 3)
    return vertices, torch.arange(3 * count).reshape(-1, 3)


def intrinsics(focal: float, cx: float, cy: float) -> Tensor:
    """(3, 3), float32."""
    return torch.tensor([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
