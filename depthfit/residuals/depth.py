"""Depth: the rendered surface against the depth estimate, in log space, free of the focal it assumed.

A monocular estimator's metric depth is proportional to the focal f_D that it assumed, so its canonical
depth D / f_D measures z / f:

    e = [log z(u) - log f - s - field(u) - (log D(u) - log f_D)] / sigma

with s the image's log depth scale and field(u) a smooth error. A sensor that measures metres has no such
focal: there ``focal_coupling`` is zero and e = [log z - s - field - log D] / sigma.

z(u) is where the pixel's ray r = ((u - c) / f, 1) meets the plane of the triangle that the renderer found
there, moved outwards by the clothes' thickness t: z = (n . X + t) / (n . r), n the unit normal. No
differentiable renderer is needed: with X the material point of the triangle that is hit,

    dz = n . dX / (n . r),     dz / d log f = -z n . dr / (n . r),  dr = -((u - c) / f, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.residuals.rows import Rows
from depthfit.struct import TensorStruct

MIN_FACING = 0.1
"""Smallest |cos| between ray and normal; beyond it the surface grazes the ray and z is ill defined."""


@dataclass(frozen=True)
class DepthSamples(TensorStruct):
    """Pixels of N people with the triangle seen there.

    Attributes:
        corner: (N, P, 3) vertex indices of the triangle.
        xy: (N, P, 2) px.
        log_depth: (N, P) log D - log f_D (canonical), or log D where the depth is metric.
        sigma: (N, P) in log depth.
        weight: (N, P) in [0, 1]; zero for no reading.
        basis: (N, P, K) the smooth error field's basis at the pixel.
        cover: (N, P, C) share of each amplitude of the clothes at the pixel.
        focal_coupling: (N,) one for canonical depth, zero for metric depth.
    """

    corner: Tensor
    xy: Tensor
    log_depth: Tensor
    sigma: Tensor
    weight: Tensor
    basis: Tensor
    cover: Tensor
    focal_coupling: Tensor


@dataclass(frozen=True)
class RayHit(TensorStruct):
    """Where rays meet triangles' planes: ``z`` (N, P) m on the clothes, ``bary`` (N, P, 3) of the body
    point below, ``normal`` (N, P, 3) unit and facing the camera, ``facing`` (N, P) = n . r < 0,
    ``ray`` (N, P, 3)."""

    z: Tensor
    bary: Tensor
    normal: Tensor
    facing: Tensor
    ray: Tensor


def intersect(triangle: Tensor, xy: Tensor, focal: Tensor, center: Tensor, thickness: Tensor) -> RayHit:
    """Meet pixel rays with the planes of ``triangle`` (N, P, 3, 3) m in the camera's frame, moved outwards
    by ``thickness`` (N, P) m."""
    ray = torch.cat([(xy - center[:, None]) / focal[:, None, None], torch.ones_like(xy[..., :1])], -1)
    a, b, c = triangle.unbind(-2)
    cross = torch.linalg.cross(b - a, c - a, dim=-1)
    area2 = (cross * cross).sum(-1, keepdim=True).clamp(min=1e-20)
    normal = cross / area2.sqrt()
    facing = (normal * ray).sum(-1)
    limit = -MIN_FACING * ray.norm(dim=-1)
    facing = torch.minimum(facing, limit)
    z = ((normal * a).sum(-1) + thickness) / facing
    hit = ray * z[..., None] - thickness[..., None] * normal - a
    v = (torch.linalg.cross(hit, c - a, dim=-1) * cross).sum(-1) / area2[..., 0]
    w = (torch.linalg.cross(b - a, hit, dim=-1) * cross).sum(-1) / area2[..., 0]
    return RayHit(z, torch.stack([1 - v - w, v, w], -1), normal, facing, ray)


def depth_rows(hit: RayHit, focal: Tensor, log_scale: Tensor, field: Tensor, samples: DepthSamples) -> Rows:
    """Whitened log-depth error, one row a pixel.

    Args:
        focal: (N,) px; log_scale: (N,); field: (N, K) amplitudes.
    """
    coupling = samples.focal_coupling[:, None]
    z = hit.z.clamp(min=1e-3)
    smooth = (samples.basis @ field[..., None])[..., 0]
    error = z.log() - coupling * focal.log()[:, None] - log_scale[:, None] - smooth - samples.log_depth
    inverse = 1 / samples.sigma
    slope = inverse / z
    lateral = (hit.normal[..., :2] * hit.ray[..., :2]).sum(-1)
    return Rows(
        residual=(error * inverse)[..., None],
        weight=samples.weight,
        point=(hit.normal * (slope / hit.facing)[..., None])[..., None, :],
        log_focal=(inverse * (lateral / hit.facing - coupling))[..., None],
        log_scale=-inverse[..., None],
        clothes=((slope / hit.facing)[..., None] * samples.cover)[..., None, :],
        field=-(samples.basis * inverse[..., None])[..., None, :],
    )
