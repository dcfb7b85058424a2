# mypy: disable-error-code="no-untyped-def"
"""Residuals and cost of the depth and contour rows as Triton kernels, for CUDA.

The same mathematics as :mod:`depthfit.residuals.depth` and :mod:`depthfit.residuals.contour`, which are the
reference. Only the vertices that a row names are shaped and skinned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from depthfit.body.model import Body, Skeleton
from depthfit.body.points import joint_shape_rows, parent_rotation
from depthfit.joints import NUM_JOINTS
from depthfit.residuals.contour import ContourMatches
from depthfit.residuals.depth import MIN_FACING, DepthSamples
from depthfit.residuals.keypoints import MIN_DEPTH
from depthfit.state import PersonState
from depthfit.struct import TensorStruct

TILE = tl.constexpr(32)
"""Lanes of a tile of columns."""
_ROWS, _LANES = 128, 128
_MIN_FACING, _MIN_DEPTH = tl.constexpr(MIN_FACING), tl.constexpr(MIN_DEPTH)


@dataclass(frozen=True)
class Surface(TensorStruct):
    """Rows of N people on the surface, under a state.

    Attributes:
        depth, contour: The matches.
        index: (N, S) the vertices they name: 3 P corners of the depth samples, then C of the rim.
        tables: Of the posed people.
        rest, posed: (N, S, 3) m, the vertices shaped, and posed in the camera's frame.
    """

    depth: DepthSamples
    contour: ContourMatches
    index: Tensor
    tables: PersonTables
    rest: Tensor
    posed: Tensor


@dataclass(frozen=True)
class PersonTables(TensorStruct):
    """What the kernels read of N posed people.

    Attributes:
        joint: (N, 24, 15): of each joint its rotation (9), its offset p - G J (3) and its position (3) m.
        frame: (N, 24, 9) rotation of each joint's parent.
        shape: (N, 24, 3, B) change of the offset with shape.
        camera: (N, 12): focal, center (2), translation (3), z of the pelvis, bearing (2), log focal,
            log depth scale, focal coupling.
        clothes: (N, C); field: (N, K); betas: (N, B).
    """

    joint: Tensor
    frame: Tensor
    shape: Tensor
    camera: Tensor
    clothes: Tensor
    field: Tensor
    betas: Tensor


def person_tables(
    body: Body,
    people: PersonState,
    skeleton: Skeleton,
    log_focal: Tensor,
    log_scale: Tensor,
    center: Tensor,
    coupling: Tensor,
) -> PersonTables:
    """Tables of people under a camera each, ``log_focal`` and ``log_scale`` (N,)."""
    n = len(center)
    joint = torch.cat([skeleton.rotation.flatten(-2), skeleton.offset, skeleton.position], -1)
    transl, z = people.transl, people.log_distance.exp()
    camera = [log_focal.exp(), *center.unbind(-1), *transl.unbind(-1), z, *people.bearing.unbind(-1)]
    return PersonTables(
        joint=joint,
        frame=parent_rotation(skeleton).reshape(n, NUM_JOINTS, 9),
        shape=joint_shape_rows(body, skeleton.rotation, skinned=True),
        camera=torch.stack([*camera, log_focal, log_scale, coupling], -1),
        clothes=people.clothes.contiguous(),
        field=people.field.contiguous(),
        betas=people.betas.contiguous(),
    )


@triton.jit
def _skin_kernel(
    index, template, shapedirs, bone, weight, joint, camera, betas, rest_out, posed_out, count,
    BETAS: tl.constexpr, BONES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = place < count
    vertex = tl.load(index + person * count + place, mask=live, other=0)
    x = tl.load(template + vertex * 3, mask=live, other=0.0)
    y = tl.load(template + vertex * 3 + 1, mask=live, other=0.0)
    z = tl.load(template + vertex * 3 + 2, mask=live, other=0.0)
    lane = tl.arange(0, TILE)
    here = lane < BETAS
    amounts = tl.load(betas + person * BETAS + lane, mask=here, other=0.0)[None]
    # A vertex's shape directions lie side by side: a row of lanes reads them together.
    row, shaped = shapedirs + vertex[:, None] * 3 * BETAS + lane[None], live[:, None] & here[None]
    x += tl.sum(amounts * tl.load(row, mask=shaped, other=0.0), 1)
    y += tl.sum(amounts * tl.load(row + BETAS, mask=shaped, other=0.0), 1)
    z += tl.sum(amounts * tl.load(row + 2 * BETAS, mask=shaped, other=0.0), 1)
    to = (person * count + place) * 3
    tl.store(rest_out + to, x, mask=live)
    tl.store(rest_out + to + 1, y, mask=live)
    tl.store(rest_out + to + 2, z, mask=live)
    px = tl.zeros([LANES], tl.float32) + tl.load(camera + person * 12 + 3)
    py = tl.zeros([LANES], tl.float32) + tl.load(camera + person * 12 + 4)
    pz = tl.zeros([LANES], tl.float32) + tl.load(camera + person * 12 + 5)
    for k in tl.static_range(BONES):
        w = tl.load(weight + vertex * BONES + k, mask=live, other=0.0)
        some = live & (w != 0)
        t = joint + (person * 24 + tl.load(bone + vertex * BONES + k, mask=live, other=0)) * 15
        px += w * (
            tl.load(t, mask=some, other=0.0) * x
            + tl.load(t + 1, mask=some, other=0.0) * y
            + tl.load(t + 2, mask=some, other=0.0) * z
            + tl.load(t + 9, mask=some, other=0.0)
        )
        py += w * (
            tl.load(t + 3, mask=some, other=0.0) * x
            + tl.load(t + 4, mask=some, other=0.0) * y
            + tl.load(t + 5, mask=some, other=0.0) * z
            + tl.load(t + 10, mask=some, other=0.0)
        )
        pz += w * (
            tl.load(t + 6, mask=some, other=0.0) * x
            + tl.load(t + 7, mask=some, other=0.0) * y
            + tl.load(t + 8, mask=some, other=0.0) * z
            + tl.load(t + 11, mask=some, other=0.0)
        )
    tl.store(posed_out + to, px, mask=live)
    tl.store(posed_out + to + 1, py, mask=live)
    tl.store(posed_out + to + 2, pz, mask=live)


@triton.jit
def load3(pointer, at, live):
    x = tl.load(pointer + at * 3, mask=live, other=0.0)
    y = tl.load(pointer + at * 3 + 1, mask=live, other=0.0)
    return x, y, tl.load(pointer + at * 3 + 2, mask=live, other=0.0)


@triton.jit
def depth_row(posed, at, xy, row, live, camera, thickness, smooth, log_depth, sigma):
    """Residual, its derivative by the point (3), by log focal; slope by thickness; 1 / sigma; bary (3)."""
    ax, ay, az = load3(posed, at, live)
    bx, by, bz = load3(posed, at + 1, live)
    cx, cy, cz = load3(posed, at + 2, live)
    f, log_f = tl.load(camera), tl.load(camera + 9)
    coupling = tl.load(camera + 11)
    rx = (tl.load(xy + row * 2, mask=live, other=0.0) - tl.load(camera + 1)) / f
    ry = (tl.load(xy + row * 2 + 1, mask=live, other=0.0) - tl.load(camera + 2)) / f
    bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
    nx, ny, nz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    area2 = tl.maximum(nx * nx + ny * ny + nz * nz, 1e-20)
    size = tl.sqrt(area2)
    ux, uy, uz = nx / size, ny / size, nz / size
    limit = -_MIN_FACING * tl.sqrt(rx * rx + ry * ry + 1)
    facing = tl.minimum(ux * rx + uy * ry + uz, limit)
    z = (ux * ax + uy * ay + uz * az + thickness) / facing
    hx, hy, hz = rx * z - thickness * ux - ax, ry * z - thickness * uy - ay, z - thickness * uz - az
    v = ((hy * cz - hz * cy) * nx + (hz * cx - hx * cz) * ny + (hx * cy - hy * cx) * nz) / area2
    w = ((by * hz - bz * hy) * nx + (bz * hx - bx * hz) * ny + (bx * hy - by * hx) * nz) / area2
    z = tl.maximum(z, 1e-3)
    inverse = 1 / tl.load(sigma + row, mask=live, other=1.0)
    error = tl.log(z) - coupling * log_f - tl.load(camera + 10) - smooth
    error -= tl.load(log_depth + row, mask=live, other=0.0)
    slope = inverse / (z * facing)
    by_focal = inverse * ((ux * rx + uy * ry) / facing - coupling)
    return error * inverse, slope * ux, slope * uy, slope * uz, by_focal, slope, inverse, 1 - v - w, v, w


@triton.jit
def contour_row(posed, at, xy, normal, row, live, camera, thickness, sigma):
    """Residual, its derivative by the point (3), by log focal, by the clothes' thickness."""
    x, y, depth = load3(posed, at, live)
    f = tl.load(camera)
    z = tl.maximum(depth, _MIN_DEPTH)
    scale = f / z
    free = tl.where(depth > _MIN_DEPTH, 1.0, 0.0)
    rx, ry = x / z, y / z
    nx = tl.load(normal + row * 2, mask=live, other=0.0)
    ny = tl.load(normal + row * 2 + 1, mask=live, other=0.0)
    standoff = thickness * scale
    inverse = 1 / tl.load(sigma + row, mask=live, other=1.0)
    along = nx * (f * rx) + ny * (f * ry) + standoff
    left = tl.load(camera + 1) - tl.load(xy + row * 2, mask=live, other=0.0)
    top = tl.load(camera + 2) - tl.load(xy + row * 2 + 1, mask=live, other=0.0)
    gz = -(nx * rx + ny * ry) * free * scale - standoff * scale / f
    residual = (along + nx * left + ny * top) * inverse
    return (
        residual,
        nx * scale * inverse,
        ny * scale * inverse,
        gz * inverse,
        along * inverse,
        scale * inverse,
    )


@triton.jit
def amount(table, amplitudes, row, live, COUNT: tl.constexpr):
    """Rows of a table (rows, COUNT) and their products with amplitudes (COUNT,)."""
    lane = tl.arange(0, TILE)
    here = lane < COUNT
    tile = tl.load(table + row[:, None] * COUNT + lane[None], mask=live[:, None] & here[None], other=0.0)
    return tile, tl.sum(tile * tl.load(amplitudes + lane, mask=here, other=0.0)[None], 1)


@triton.jit
def _cost_kernel(
    posed, weight, xy, normal, sigma, cover, basis, log_depth, camera, clothes, field, scale, out,
    count, first, total,
    DEPTH: tl.constexpr, CLOTHES: tl.constexpr, FIELD: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(0).to(tl.int64)
    camera += person * 12
    posed += person * total * 3
    square = tl.load(scale) * tl.load(scale)
    cost = tl.zeros([ROWS], tl.float32)
    start = 0
    while start < count:
        place = start + tl.arange(0, ROWS)
        row = person * count + place
        strength = tl.load(weight + row, mask=place < count, other=0.0)
        live = strength > 0
        _, thickness = amount(cover, clothes + person * CLOTHES, row, live, CLOTHES)
        if DEPTH:
            smooth = tl.zeros([ROWS], tl.float32)
            if FIELD > 0:
                _, smooth = amount(basis, field + person * FIELD, row, live, FIELD)
            r, _, _, _, _, _, _, _, _, _ = depth_row(
                posed, first + place * 3, xy, row, live, camera, thickness, smooth, log_depth, sigma
            )
        else:
            r, _, _, _, _, _ = contour_row(
                posed, first + place, xy, normal, row, live, camera, thickness, sigma
            )
        squared = r * r
        cost += tl.where(live, strength * squared / (1 + squared / square), 0.0)
        start += ROWS
    tl.store(out + person, tl.sum(cost, 0) / 2)


def surface(
    body: Body, depth: DepthSamples, contour: ContourMatches, index: Tensor, tables: PersonTables
) -> Surface:
    """Shape and pose the vertices ``index`` (N, S) that the matches name."""
    bone, weight = body.bones
    n, count = index.shape
    rest, posed = tables.joint.new_empty(n, count, 3), tables.joint.new_empty(n, count, 3)
    _skin_kernel[(triton.cdiv(count, _LANES), n)](
        index, body.v_template, body.shapedirs, bone, weight, tables.joint, tables.camera, tables.betas,
        rest, posed, count, BETAS=body.num_betas, BONES=bone.shape[1], LANES=_LANES,
    )  # fmt: skip
    return Surface(depth, contour, index, tables, rest, posed)


def arguments(surface: Surface, term: str) -> tuple[tuple[Tensor, ...], int, int]:
    """Tensors of one term's rows in the kernels' order, how many rows, and their first vertex."""
    if term == "depth":
        d = surface.depth
        unused = d.xy
        tensors = (d.weight, d.xy, unused, d.sigma, d.cover, d.basis, d.log_depth)
        return tuple(t.contiguous() for t in tensors), d.weight.shape[1], 0
    c = surface.contour
    unused = c.xy
    tensors = (c.weight, c.xy, c.normal, c.sigma, c.cover, unused, unused)
    return tuple(t.contiguous() for t in tensors), c.weight.shape[1], 3 * surface.depth.weight.shape[1]


def cost(surface: Surface, term: str, scale: Tensor) -> Tensor:
    """(N,) robust cost of the ``depth`` or ``contour`` rows, Geman-McClure's ``scale`` () in sigmas."""
    tensors, count, first = arguments(surface, term)
    tables = surface.tables
    out = torch.zeros_like(tables.camera[:, 0])
    if not count:
        return out
    _cost_kernel[(len(out),)](
        surface.posed, *tensors, tables.camera, tables.clothes, tables.field, scale, out,
        count, first, surface.index.shape[1],
        DEPTH=term == "depth", CLOTHES=tables.clothes.shape[1], FIELD=tables.field.shape[1], ROWS=_ROWS,
    )  # fmt: skip
    return out
