"""Association's inner loops in plain torch: the reference, and what runs on a CPU.

:mod:`depthfit.fit.association_triton` has the same functions as kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.raster import Fragments
from depthfit.residuals.keypoints import projection

NORMAL_PENALTY = 6.0
"""A partner whose normal differs is as good as one that lies farther: at 60 degrees, twice as far."""
OPEN_GAP = 0.03
"""m by which what lies behind a rim must be farther, where depth edges are the outline."""


def skin(rest: Tensor, bone: Tensor, weight: Tensor, transform: Tensor) -> Tensor:
    """Posed vertices (N, V, 3) of ``rest`` (N, V, 3), each moved by few bones.

    Args:
        bone: (V, K) int32 joints, and ``weight`` (V, K) of each, the heaviest first.
        transform: (N, 24, 3, 4) of the joints.
    """
    out = torch.zeros_like(rest)
    homogeneous = torch.cat([rest, torch.ones_like(rest[..., :1])], -1)
    for joints, share in zip(bone.mT, weight.mT, strict=True):
        # Few vertices have more than two bones.
        some = torch.nonzero(share)[:, 0]
        moved = transform.index_select(1, joints.index_select(0, some))
        point = homogeneous.index_select(1, some)
        posed = (moved * point[..., None, :]).sum(-1) * share.index_select(0, some)[:, None]
        out.index_add_(1, some, posed)
    return out


def facing(vertices: Tensor, faces: Tensor) -> Tensor:
    """(N, F) cosine between each face's normal and the direction to the camera; positive where it faces."""
    a, b, c = (vertices.index_select(1, corner) for corner in faces.unbind(-1))
    normal = torch.linalg.cross(b - a, c - a)
    return -torch.nn.functional.cosine_similarity(normal, a, dim=-1)


def rim_key(
    vertices: Tensor,
    facing: Tensor,
    edge: Tensor,
    edge_face: Tensor,
    order: Tensor,
    focal: Tensor,
    center: Tensor,
    origin: Tensor,
    step: Tensor,
    depth: Tensor,
    closed: Tensor,
    barred: Tensor,
) -> Tensor:
    """(N, V) ``order`` of the vertices that are a seen rim, -1 of all others.

    A rim vertex lies on an edge between a facing and an averted triangle. It is seen where nothing nearer
    covers it; of a closed outline only the rim against the background counts.

    Args:
        vertices: (N, V, 3) m; facing: (N, F).
        edge, edge_face: (E, 2) vertices and faces of the mesh's edges; order: (V,).
        focal: (N,) px; center, origin: (N, 2) px; step: (N,) px: camera and window.
        depth: (N, S, S) m, the rendered body; closed: (N,) bool, of the outline.
        barred: (N, S, S) bool, where no rim counts.
    """
    front = facing > 0
    person, turning = torch.nonzero(
        front.index_select(1, edge_face[:, 0]) != front.index_select(1, edge_face[:, 1]), as_tuple=True
    )
    flag = torch.zeros(vertices.shape[:2], dtype=torch.bool, device=vertices.device)
    flag[person[:, None], edge[turning]] = True
    person, vertex = torch.nonzero(flag, as_tuple=True)
    points = vertices[person, vertex]
    xy, _ = projection(points[:, None], focal[person], center[person])
    cell = ((xy[:, 0] - origin[person]) / step[person, None]).round().long()
    side = depth.shape[-1]
    inside = ((cell >= 0) & (cell < side)).all(-1)
    row, column = cell[:, 1].clamp(0, side - 1), cell[:, 0].clamp(0, side - 1)
    # The farthest surface in the cells around: at a true rim the background, or what lies behind, shows.
    behind = torch.nn.functional.max_pool2d(depth[:, None], 3, stride=1, padding=1)[person, 0, row, column]
    uncovered = torch.where(closed[person], behind.isinf(), behind > points[:, 2] + OPEN_GAP)
    seen = inside & uncovered & ~barred[person, row, column]
    key = vertices.new_full(flag.shape, -1.0)
    key[person[seen], vertex[seen]] = order[vertex[seen]].to(key.dtype)
    return key


def area_normals(vertices: Tensor, faces: Tensor, around: Tensor, index: Tensor) -> Tensor:
    """(N, R, 3) outward normals, not of unit length: sums of the area vectors of the faces around vertices.

    Args:
        around: (V, K) faces of each vertex, -1 where there are fewer.
        index: (N, R) vertices.
    """
    near = around[index]
    corners = faces[near.clamp(min=0)].flatten(1)
    a, b, c = (
        vertices.gather(1, corners[..., None].expand(-1, -1, 3)).unflatten(1, (*near.shape[1:], 3)).unbind(-2)
    )
    normal = torch.linalg.cross(b - a, c - a)
    return (normal * (near >= 0)[..., None]).sum(-2)


def nearest(
    xy: Tensor, normal: Tensor, to_xy: Tensor, to_normal: Tensor, to_valid: Tensor, min_alignment: float
) -> tuple[Tensor, Tensor, Tensor]:
    """For each of (N, A) points the cheapest of (N, B): its index, cost (infinite: none) and px^2."""
    # About the middle of all points, so that the products below lose no digits.
    middle = to_xy.mean(1, keepdim=True)
    squared = torch.cdist(xy - middle, to_xy - middle).square()
    alignment = normal @ to_normal.mT
    cost = squared * (1 + NORMAL_PENALTY - NORMAL_PENALTY * alignment)
    allowed = (alignment > min_alignment) & to_valid[:, None]
    best, index = cost.masked_fill_(~allowed, torch.inf).min(-1)
    return index, best, squared.gather(2, index[..., None])[..., 0]


def sample_key(
    fragments: Fragments,
    facing: Tensor,
    face_part: Tensor,
    usable: Tensor,
    noise: Tensor,
    min_facing: float,
) -> Tensor:
    """(N, S x S) key of each cell, the larger the sooner it is sampled; -inf where it cannot be.

    Samples are spread over the body's parts so that thin limbs count.

    Args:
        facing: (N, F); face_part: (F,) joint; usable: (N, S, S) bool, cells with a reading.
        noise: (S, S).
    """
    seen = fragments.face.clamp(min=0).flatten(1)
    usable = (fragments.hit & usable).flatten(1) & (facing.gather(1, seen) >= min_facing)
    part = face_part[seen]
    counts = facing.new_zeros(len(seen), 24).scatter_add_(1, part, usable.to(facing.dtype))
    share = (0.5 * counts.clamp(min=1).log()).gather(1, part)
    return (noise.flatten() - share).masked_fill(~usable, -torch.inf)
