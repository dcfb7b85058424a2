"""Plain shading of rasterised meshes, for pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.raster.interface import Fragments

_LIGHT = (-0.45, -0.65, -0.62)
"""Direction towards the light in the camera frame: above, to the viewer's left, behind the camera."""
_AMBIENT, _DIFFUSE, _SHEEN = 0.42, 0.62, 0.12


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (*batch, V, 3) of ``vertices`` (*batch, V, 3) with ``faces`` (F, 3), pointing outward.

    Each is the mean of the normals of its triangles, weighted by area; zero for a vertex of no triangle.
    """
    a, b, c = (vertices.index_select(-2, f) for f in faces.unbind(-1))
    normal = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in faces.unbind(-1):
        total.index_add_(-2, corner, normal)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-20)


def shade(fragments: Fragments, vertices: Tensor, faces: Tensor, color: Tensor) -> Tensor:
    """Picture (N, H, W, 3) uint8 RGB of the meshes, black where nothing is hit.

    Lambert's law under one light from the upper left, plus ambient light that is stronger from above and a
    faint sheen where the surface turns away, so that limbs before the trunk stand out.

    Args:
        fragments: Of ``rasterize``.
        vertices: (N, V, 3) m, camera frame, as they were drawn.
        faces: (F, 3).
        color: (3,), (N, 3) or (N, V, 3) RGB in [0, 1]: of all, of each mesh, of each vertex.
    """
    n, v = vertices.shape[:2]
    per_mesh = color if color.ndim != 2 else color[:, None]
    paint = per_mesh.to(vertices).expand(n, v, 3)
    attributes = torch.cat([vertices, vertex_normals(vertices, faces), paint], -1)
    point, normal, paint = fragments.interpolate_hits(faces, attributes).split(3, -1)
    toward = -torch.nn.functional.normalize(point, dim=-1)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    facing = (normal * toward).sum(-1, keepdim=True)
    # Where an open mesh shows its inside, light it as the outside.
    normal, facing = torch.where(facing < 0, -normal, normal), facing.abs()
    light = torch.nn.functional.normalize(vertices.new_tensor(_LIGHT), dim=0)
    diffuse = (normal * light).sum(-1, keepdim=True).clamp(min=0)
    sky = 0.8 - 0.2 * normal[..., 1:2]
    lit = paint * (_AMBIENT * sky + _DIFFUSE * diffuse) + _SHEEN * (1 - facing) ** 3
    picture = torch.zeros(*fragments.face.shape, 3, dtype=torch.uint8, device=lit.device)
    picture[fragments.hit] = (lit.clamp(0, 1) * 255).round().to(torch.uint8)
    return picture
