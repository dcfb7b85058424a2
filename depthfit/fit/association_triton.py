"""Association's inner loops as Triton kernels, for CUDA.

Each function gives what the function of the same name in :mod:`depthfit.fit.association_torch` gives, whose
docstring says what that is, without large intermediate tensors: a thread block reads the few corners, edges
or outline points that it needs. Nothing is asked of the device, so a round can be captured in a CUDA graph.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from depthfit.body.model import Body
from depthfit.fit.association_torch import NORMAL_PENALTY, OPEN_GAP
from depthfit.raster import Fragments
from depthfit.residuals.keypoints import MIN_DEPTH

_LANES = 256
_POINTS, _PARTNERS = 16, 64
"""Points of one program of :func:`nearest`, and partners that it looks at together."""


@triton.jit
def _corner(vertices, vertex, live):
    x = tl.load(vertices + vertex * 3, mask=live, other=0.0)
    y = tl.load(vertices + vertex * 3 + 1, mask=live, other=0.0)
    return x, y, tl.load(vertices + vertex * 3 + 2, mask=live, other=0.0)


@triton.jit
def _normal(vertices, faces, face, live):
    """First corner and cross product of the two edges from it."""
    ax, ay, az = _corner(vertices, tl.load(faces + face * 3, mask=live, other=0), live)
    bx, by, bz = _corner(vertices, tl.load(faces + face * 3 + 1, mask=live, other=0), live)
    cx, cy, cz = _corner(vertices, tl.load(faces + face * 3 + 2, mask=live, other=0), live)
    bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    return ax, ay, az, by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx


@triton.jit
def _skin_kernel(rest, bone, weight, transform, out, num_vertices, BONES: tl.constexpr, LANES: tl.constexpr):
    person = tl.program_id(1).to(tl.int64)
    vertex = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = vertex < num_vertices
    x, y, z = _corner(rest + person * num_vertices * 3, vertex, live)
    px, py, pz = tl.zeros_like(x), tl.zeros_like(x), tl.zeros_like(x)
    for k in tl.static_range(BONES):
        w = tl.load(weight + vertex * BONES + k, mask=live, other=0.0)
        t = transform + person * 288 + tl.load(bone + vertex * BONES + k, mask=live, other=0) * 12
        some = live & (w != 0)
        for r in tl.static_range(3):
            a = tl.load(t + 4 * r, mask=some, other=0.0) * x
            a += tl.load(t + 4 * r + 1, mask=some, other=0.0) * y
            a += tl.load(t + 4 * r + 2, mask=some, other=0.0) * z
            a = w * (a + tl.load(t + 4 * r + 3, mask=some, other=0.0))
            if r == 0:
                px += a
            elif r == 1:
                py += a
            else:
                pz += a
    place = out + (person * num_vertices + vertex) * 3
    tl.store(place, px, mask=live)
    tl.store(place + 1, py, mask=live)
    tl.store(place + 2, pz, mask=live)


def skin(body: Body, rest: Tensor, transform: Tensor) -> Tensor:
    """Posed vertices (N, V, 3)."""
    bone, weight = body.bones
    out = torch.empty_like(rest)
    (n, count, _), bones = rest.shape, bone.shape[1]
    _skin_kernel[(triton.cdiv(count, _LANES), n)](
        rest.contiguous(), bone, weight, transform.contiguous(), out, count, BONES=bones, LANES=_LANES
    )
    return out


@triton.jit
def _facing_kernel(vertices, faces, out, num_vertices, num_faces, LANES: tl.constexpr):
    person = tl.program_id(1).to(tl.int64)
    face = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = face < num_faces
    x, y, z, nx, ny, nz = _normal(vertices + person * num_vertices * 3, faces, face, live)
    size = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-8)
    size *= tl.maximum(tl.sqrt(x * x + y * y + z * z), 1e-8)
    tl.store(out + person * num_faces + face, -(nx * x + ny * y + nz * z) / size, mask=live)


def facing(vertices: Tensor, faces: Tensor) -> Tensor:
    """(N, F) cosine between each face's normal and the direction to the camera."""
    n, count = len(vertices), len(faces)
    out = vertices.new_empty(n, count)
    grid = (triton.cdiv(count, _LANES), n)
    _facing_kernel[grid](vertices, faces, out, vertices.shape[1], count, LANES=_LANES)
    return out


@triton.jit
def _turning_kernel(facing, edge, edge_face, out, num_vertices, num_faces, num_edges, LANES: tl.constexpr):
    person = tl.program_id(1).to(tl.int64)
    index = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = index < num_edges
    row = facing + person * num_faces
    one = tl.load(row + tl.load(edge_face + index * 2, mask=live, other=0), mask=live, other=0.0) > 0
    two = tl.load(row + tl.load(edge_face + index * 2 + 1, mask=live, other=0), mask=live, other=0.0) > 0
    turns = live & (one != two)
    place = out + person * num_vertices
    # Several edges of a vertex may write, all the same value.
    tl.store(place + tl.load(edge + index * 2, mask=turns, other=0), 1, mask=turns)
    tl.store(place + tl.load(edge + index * 2 + 1, mask=turns, other=0), 1, mask=turns)


@triton.jit
def _cell(value, origin, step, side):
    """Nearest cell of a pixel coordinate, halves to even; outside the window any number out of range."""
    place = tl.minimum(tl.maximum((value - origin) / step, -10.0), side + 10.0)
    return ((place + 12582912.0) - 12582912.0).to(tl.int32)


@triton.jit
def _seen_kernel(
    turning, vertices, focal, center, origin, step, depth, closed, barred, order, out, num_vertices, side,
    MIN_DEPTH: tl.constexpr, OPEN_GAP: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    vertex = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = vertex < num_vertices
    flag = tl.load(turning + person * num_vertices + vertex, mask=live, other=0) != 0
    x, y, z = _corner(vertices + person * num_vertices * 3, vertex, flag)
    ahead = tl.maximum(z, MIN_DEPTH)
    f, s = tl.load(focal + person), tl.load(step + person)
    u = f * (x / ahead) + tl.load(center + person * 2)
    v = f * (y / ahead) + tl.load(center + person * 2 + 1)
    column = _cell(u, tl.load(origin + person * 2), s, side)
    row = _cell(v, tl.load(origin + person * 2 + 1), s, side)
    seen = flag & (column >= 0) & (column < side) & (row >= 0) & (row < side)
    behind = tl.full([LANES], float("-inf"), tl.float32)
    cells = person * side * side
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            i, j = row + dy, column + dx
            some = seen & (i >= 0) & (i < side) & (j >= 0) & (j < side)
            near = tl.load(depth + cells + i * side + j, mask=some, other=float("-inf"))
            behind = tl.maximum(behind, near)
    shut = tl.load(closed + person) != 0
    open_behind = tl.where(shut, behind == float("inf"), behind > z + OPEN_GAP)
    hidden = tl.load(barred + cells + row * side + column, mask=seen, other=0) != 0
    key = tl.load(order + vertex, mask=live, other=0.0)
    tl.store(
        out + person * num_vertices + vertex, tl.where(seen & open_behind & ~hidden, key, -1.0), mask=live
    )


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
    """(N, V) ``order`` of the vertices that are a seen rim, -1 of all others."""
    (n, count, _), num_faces, side = vertices.shape, facing.shape[1], depth.shape[-1]
    turning = torch.zeros(n, count, dtype=torch.uint8, device=vertices.device)
    _turning_kernel[(triton.cdiv(len(edge), _LANES), n)](
        facing, edge, edge_face, turning, count, num_faces, len(edge), LANES=_LANES
    )
    out = vertices.new_empty(n, count)
    _seen_kernel[(triton.cdiv(count, _LANES), n)](
        turning, vertices, focal, center, origin, step, depth, closed.view(torch.uint8),
        barred.view(torch.uint8), order, out, count, side,
        MIN_DEPTH=MIN_DEPTH, OPEN_GAP=OPEN_GAP, LANES=_LANES,
    )  # fmt: skip
    return out


@triton.jit
def _vertex_normal_kernel(
    vertices, faces, around, index, out, num_vertices, count, FACES: tl.constexpr, LANES: tl.constexpr
):
    person = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = place < count
    vertex = tl.load(index + person * count + place, mask=live, other=0)
    sx, sy, sz = tl.zeros([LANES], tl.float32), tl.zeros([LANES], tl.float32), tl.zeros([LANES], tl.float32)
    for k in tl.static_range(FACES):
        face = tl.load(around + vertex * FACES + k, mask=live, other=-1)
        some = live & (face >= 0)
        _, _, _, nx, ny, nz = _normal(vertices + person * num_vertices * 3, faces, face, some)
        sx, sy, sz = sx + nx, sy + ny, sz + nz
    to = out + (person * count + place) * 3
    tl.store(to, sx, mask=live)
    tl.store(to + 1, sy, mask=live)
    tl.store(to + 2, sz, mask=live)


def area_normals(vertices: Tensor, faces: Tensor, around: Tensor, index: Tensor) -> Tensor:
    """(N, R, 3) outward normals, not of unit length."""
    (n, count), index = index.shape, index.contiguous()
    out = vertices.new_empty(n, count, 3)
    _vertex_normal_kernel[(triton.cdiv(count, _LANES), n)](
        vertices, faces, around, index, out, vertices.shape[1], count, FACES=around.shape[1], LANES=_LANES
    )
    return out


@triton.jit
def _nearest_kernel(
    xy, normal, to_xy, to_normal, to_valid, index_out, cost_out, squared_out, count, to_count,
    MIN_ALIGNMENT: tl.constexpr, NORMAL_PENALTY: tl.constexpr, POINTS: tl.constexpr, PARTNERS: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    live = place < count
    at = (person * count + place) * 2
    x, y = tl.load(xy + at, mask=live, other=0.0), tl.load(xy + at + 1, mask=live, other=0.0)
    u, v = tl.load(normal + at, mask=live, other=0.0), tl.load(normal + at + 1, mask=live, other=0.0)
    # Every lane keeps the best of its own partners; they are compared once, at the end.
    lane = tl.arange(0, PARTNERS)[None]
    best = tl.full([POINTS, PARTNERS], float("inf"), tl.float32)
    best_squared = tl.zeros([POINTS, PARTNERS], tl.float32)
    best_index = tl.zeros([POINTS, PARTNERS], tl.int32)
    first = 0
    while first < to_count:
        partner = first + tl.arange(0, PARTNERS)
        here = person * to_count + partner
        valid = tl.load(to_valid + here, mask=partner < to_count, other=0) != 0
        if tl.max(valid.to(tl.int32), 0) > 0:
            px = tl.load(to_xy + here * 2, mask=valid, other=0.0)
            py = tl.load(to_xy + here * 2 + 1, mask=valid, other=0.0)
            pu = tl.load(to_normal + here * 2, mask=valid, other=0.0)
            pv = tl.load(to_normal + here * 2 + 1, mask=valid, other=0.0)
            dx, dy = x[:, None] - px[None], y[:, None] - py[None]
            squared = dx * dx + dy * dy
            alignment = u[:, None] * pu[None] + v[:, None] * pv[None]
            cost = squared * (1 + NORMAL_PENALTY - NORMAL_PENALTY * alignment)
            better = (alignment > MIN_ALIGNMENT) & valid[None] & (cost < best)
            best = tl.where(better, cost, best)
            best_squared = tl.where(better, squared, best_squared)
            best_index = tl.where(better, first + lane, best_index)
        first += PARTNERS
    least, which = tl.min(best, 1, return_indices=True)
    chosen = lane == which[:, None]
    index = tl.sum(tl.where(chosen, best_index, 0), 1)
    distance = tl.sum(tl.where(chosen, best_squared, 0.0), 1)
    at = person * count + place
    tl.store(index_out + at, index.to(tl.int64), mask=live)
    tl.store(cost_out + at, least, mask=live)
    tl.store(squared_out + at, distance, mask=live)


def nearest(
    xy: Tensor, normal: Tensor, to_xy: Tensor, to_normal: Tensor, to_valid: Tensor, min_alignment: float
) -> tuple[Tensor, Tensor, Tensor]:
    """For each of (N, A) points the cheapest of (N, B): its index, cost (infinite: none) and px^2."""
    n, count = xy.shape[:2]
    index = torch.empty(n, count, dtype=torch.int64, device=xy.device)
    cost, squared = xy.new_empty(n, count), xy.new_empty(n, count)
    _nearest_kernel[(triton.cdiv(count, _POINTS), n)](
        xy.contiguous(), normal.contiguous(), to_xy.contiguous(), to_normal.contiguous(),
        to_valid.contiguous().view(torch.uint8), index, cost, squared, count, to_xy.shape[1],
        MIN_ALIGNMENT=min_alignment, NORMAL_PENALTY=NORMAL_PENALTY, POINTS=_POINTS, PARTNERS=_PARTNERS,
    )  # fmt: skip
    return index, cost, squared


@triton.jit
def _part_kernel(
    face, facing, face_part, usable, part_out, count_out, num_faces, cells,
    MIN_FACING: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = cell < cells
    at = person * cells + cell
    seen = tl.load(face + at, mask=live, other=-1)
    some = live & (seen >= 0) & (tl.load(usable + at, mask=live, other=0) != 0)
    some &= tl.load(facing + person * num_faces + seen, mask=some, other=0.0) >= MIN_FACING
    part = tl.load(face_part + seen, mask=some, other=-1).to(tl.int32)
    tl.store(part_out + at, part.to(tl.int8), mask=live)
    tl.atomic_add(count_out + person * 24 + part, 1.0, mask=some, sem="relaxed")


@triton.jit
def _sample_kernel(part, counts, noise, out, cells, LANES: tl.constexpr):
    person = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = cell < cells
    which = tl.load(part + person * cells + cell, mask=live, other=-1).to(tl.int32)
    usable = live & (which >= 0)
    share = tl.maximum(tl.load(counts + person * 24 + which, mask=usable, other=1.0), 1.0)
    key = tl.load(noise + cell, mask=live, other=0.0) - 0.5 * tl.log(share)
    tl.store(out + person * cells + cell, tl.where(usable, key, float("-inf")), mask=live)


def sample_key(
    fragments: Fragments,
    facing: Tensor,
    face_part: Tensor,
    usable: Tensor,
    noise: Tensor,
    min_facing: float,
) -> Tensor:
    """(N, S x S) key of each cell."""
    face = fragments.face
    n, cells = len(face), face[0].numel()
    part = torch.empty(n, cells, dtype=torch.int8, device=face.device)
    counts = facing.new_zeros(n, 24)
    grid = (triton.cdiv(cells, _LANES), n)
    _part_kernel[grid](
        face, facing, face_part, usable.view(torch.uint8), part, counts, facing.shape[1], cells,
        MIN_FACING=min_facing, LANES=_LANES,
    )  # fmt: skip
    out = facing.new_empty(n, cells)
    _sample_kernel[grid](part, counts, noise, out, cells, LANES=_LANES)
    return out


@triton.jit
def _uncovered_kernel(
    face, own, other, inside, out, side, cells, MARGIN: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = cell < cells
    row, column = cell // side, cell % side
    at = person * cells + cell
    drawn = tl.load(face + at, mask=live, other=-1) >= 0
    mine = tl.load(own + at, mask=live, other=0) != 0
    stray = drawn & (tl.load(inside + at, mask=live, other=0) != 0)
    bare = mine
    for dy in tl.static_range(-MARGIN, MARGIN + 1):
        for dx in tl.static_range(-MARGIN, MARGIN + 1):
            near = live & (row + dy >= 0) & (row + dy < side) & (column + dx >= 0) & (column + dx < side)
            there = at + dy * side + dx
            masked = tl.load(own + there, mask=near & stray, other=0)
            masked |= tl.load(other + there, mask=near & stray, other=0)
            stray = stray & (masked == 0)
            bare = bare & (tl.load(face + there, mask=near & bare, other=-1) < 0)
    tl.atomic_add(out + person * 2, tl.sum((stray | bare).to(tl.int32), 0), sem="relaxed")
    tl.atomic_add(out + person * 2 + 1, tl.sum(mine.to(tl.int32), 0), sem="relaxed")


def uncovered(face: Tensor, own: Tensor, other: Tensor, inside: Tensor, margin: int) -> Tensor:
    """(N,) share of the person's mask."""
    n, side = face.shape[:2]
    cells = side * side
    counts = torch.zeros(n, 2, dtype=torch.int32, device=face.device)
    _uncovered_kernel[(triton.cdiv(cells, _LANES), n)](
        face.contiguous(), *(mask.contiguous().view(torch.uint8) for mask in (own, other, inside)),
        counts, side, cells, MARGIN=margin, LANES=_LANES,
    )  # fmt: skip
    return counts[:, 0] / counts[:, 1].clamp(min=1)
