"""Association's inner loops in plain torch: the reference, and what runs on a CPU.

:mod:`depthfit.fit.association_triton` has the same functions as kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.raster import Fragments
from depthfit.residuals.keypoints import projection

NORMAL_PENALTY = 6.0
"""A partner whose normal differs is as good as one that lies farther: at 60 degrees, twice as far."""
BEYOND, HOPELESS = 1e30, 1e20
"""px^2 a unit of the cosine that a partner lacks, and a cost that no partner has."""
OPEN_GAP = 0.03
"""m by which what lies behind a rim must be farther, where depth edges are the outline."""


def skin(body: Body, rest: Tensor, transform: Tensor) -> Tensor:
    """Posed vertices (N, V, 3) of ``rest`` (N, V, 3) under the joints' ``transform`` (N, 24, 3, 4)."""
    # Numbers of all vertices side by side, so that each of the twelve is one long row.
    blended = (transform.flatten(-2).mT @ body.weights.mT).unflatten(1, (3, 4))
    x, y, z = rest.mT.contiguous().unbind(1)
    out = torch.empty_like(blended[:, :, 0])
    for row, to in zip(blended.unbind(1), out.unbind(1), strict=True):
        torch.mul(row[:, 0], x, out=to)
        to.addcmul_(row[:, 1], y).addcmul_(row[:, 2], z).add_(row[:, 3])
    return out.mT.contiguous()


def facing(vertices: Tensor, faces: Tensor) -> Tensor:
    """(N, F) cosine between each face's normal and the direction to the camera; positive where it faces."""
    # Coordinate-major and vertex-major, so that one index copies the values of all meshes at once.
    coordinates = vertices.permute(2, 1, 0).contiguous()
    (ax, ay, az), b, c = (coordinates.index_select(1, corner) for corner in faces.unbind(-1))
    bx, by, bz = b[0].sub_(ax), b[1].sub_(ay), b[2].sub_(az)
    cx, cy, cz = c[0].sub_(ax), c[1].sub_(ay), c[2].sub_(az)
    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    along = nx * ax + ny * ay + nz * az
    square = (nx * nx + ny * ny + nz * nz) * (ax * ax + ay * ay + az * az)
    return -(along / square.clamp_(min=1e-30).sqrt_()).T


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
    x, y = xy - middle, to_xy - middle
    # Who is not valid is infinitely far.
    far = y.square().sum(-1).masked_fill_(~to_valid, torch.inf)
    near = x.square().sum(-1, keepdim=True)
    plain = near.new_tensor(1 + NORMAL_PENALTY)
    limit = near.new_tensor(BEYOND * min_alignment)
    found = []
    # One person at a time: their table of costs stays in the processor's cache.
    for k in range(len(x)):
        squared = torch.addmm(far[k], x[k], y[k].T, alpha=-2).add_(near[k])
        factor = torch.addmm(plain, normal[k], to_normal[k].T, alpha=-NORMAL_PENALTY)
        # Beyond all costs where the normals are not alike, else zero: arithmetic is faster than a mask here.
        cost = torch.addmm(limit, normal[k], to_normal[k].T, alpha=-BEYOND).relu_()
        found.append(cost.addcmul_(squared, factor).min(-1))
    best, index = (torch.stack(parts) for parts in zip(*found, strict=True))
    best = best.masked_fill(best > HOPELESS, torch.inf)
    partner = to_xy.gather(1, index[..., None].expand(-1, -1, 2))
    return index, best, (xy - partner).square().sum(-1)


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


def uncovered(face: Tensor, own: Tensor, other: Tensor, inside: Tensor, margin: int) -> Tensor:
    """(N,) share of the person's mask by which the drawn body and the mask differ by more than ``margin``
    cells: body outside all masks, or mask without body.

    Args:
        face: (N, S, S) what is drawn, -1 for nothing; own, other, inside: (N, S, S) bool, the person's mask,
            others' masks, and where the image is.
    """
    drawn, size = face >= 0, 2 * margin + 1

    def grown(cells: Tensor) -> Tensor:
        # Along the rows, then along the columns: a tenth of the comparisons of a square.
        across = torch.nn.functional.max_pool2d(cells[:, None].float(), (1, size), 1, (0, margin))
        return torch.nn.functional.max_pool2d(across, (size, 1), 1, (margin, 0))[:, 0] > 0

    stray = drawn & inside & ~grown(own | other)
    bare = own & ~grown(drawn)
    return (stray | bare).flatten(1).sum(-1) / own.flatten(1).sum(-1).clamp(min=1)
