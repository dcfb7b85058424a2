# mypy: disable-error-code="no-untyped-def"
"""Columns of the depth and contour rows as a Triton kernel, for CUDA, and their normal equations.

The same mathematics as :mod:`depthfit.residuals.depth`, :mod:`.contour` and :mod:`.rows` with
:mod:`depthfit.body.points`, which are the reference. A program makes the columns of a few rows of a person,
in tiles of rows by joints, shapes and amplitudes; what the rows' points are made of (arms, blends, triangles)
never leaves the registers. The columns are written once and multiplied by cuBLAS in float32. To keep their
products in the same kernel took longer: beside 128 x 128 sums there is no room for the rows' own tiles.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from depthfit.body.model import Body
from depthfit.body.tree import joint_tree
from depthfit.joints import NUM_BODY_JOINTS, NUM_JOINTS
from depthfit.residuals.rows import PersonBlock, split_gram
from depthfit.residuals.triton_surface import (
    TILE,
    Surface,
    amount,
    arguments,
    contour_row,
    depth_row,
    load3,
)
from depthfit.state import NUM_SHARED, PersonState, StepLayout

_ROWS, _WARPS = 16, 2
_RIGID_ROWS = 64
_TURNS = 1 + NUM_BODY_JOINTS
"""Joints that turn: root and body."""
_ALIGN = 4
"""Columns are padded to a multiple of this, 16 bytes, by zeros."""


def fits(body: Body, people: PersonState) -> bool:
    """Whether the kernels' tiles hold a body, and the clothes and field of ``people``, which count also where
    they do not move; the plain-torch path holds any."""
    most = max(body.num_betas, people.field.shape[1], people.clothes.shape[1])
    return body.posedirs is None and most <= TILE.value


@cache
def _below(device: torch.device) -> Tensor:
    """(32, 32), column j is one at joint j and all joints below it."""
    below = torch.zeros(TILE.value, TILE.value)
    below[:NUM_JOINTS, :NUM_JOINTS] = joint_tree(torch.device("cpu"), torch.float32).below.mT
    return below.to(device)


@triton.jit
def _of(row, number: tl.constexpr):
    """One number of each joint's row of a table, beside rows of evidence."""
    return tl.load(row + number, mask=(tl.arange(0, TILE) < 24), other=0.0)[None]


@triton.jit
def _turned(tile, below):
    return tl.dot(tile, below, input_precision="tf32x3")


@triton.jit
def _weighted(r, gx, gy, gz, strength, live, square):
    """Root of a row's robust weight, and the derivative by its point times that; zero without evidence."""
    root = tl.where(live, tl.sqrt(strength) / (1 + r * r / square), 0.0)
    x, y, z = tl.where(live, gx, 0.0) * root, tl.where(live, gy, 0.0) * root, tl.where(live, gz, 0.0) * root
    return root, x, y, z


@triton.jit
def _by_place(gx, gy, gz, camera):
    """Derivative by bearing (2), by log distance, and by the focal's dolly zoom."""
    far = tl.load(camera + 6)
    by_x, by_y = gx * far, gy * far
    by_z = gx * tl.load(camera + 3) + gy * tl.load(camera + 4) + gz * tl.load(camera + 5)
    return by_x, by_y, by_z, by_z - by_x * tl.load(camera + 7) - by_y * tl.load(camera + 8)


@triton.jit
def _columns_kernel(
    index, rest, posed, weights, shapedirs, below,
    weight, xy, normal, sigma, cover, basis, log_depth,
    joint, frame, shape, camera, clothes, field, scale, out, count, first, total, first_row, total_rows,
    DEPTH: tl.constexpr, CLOTHES: tl.constexpr, FIELD: tl.constexpr, BETAS: tl.constexpr,
    TURNS: tl.constexpr, WIDTH: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    camera += person * 12
    posed += person * total * 3
    rest += person * total * 3
    index += person * total
    lane = tl.arange(0, TILE)
    bones = lane < 24
    j = joint + person * 360 + lane * 15
    p = frame + person * 216 + lane * 9
    below_tile = tl.load(below + lane[:, None] * 32 + lane[None])
    is_beta = lane < BETAS
    # Of the shape's part that comes with the joints: (joint, lane) for each coordinate.
    s = shape + person * 72 * BETAS + lane[:, None] * 3 * BETAS + lane[None]
    moved = bones[:, None] & is_beta[None]
    shape_x = tl.load(s, mask=moved, other=0.0)
    shape_y = tl.load(s + BETAS, mask=moved, other=0.0)
    shape_z = tl.load(s + 2 * BETAS, mask=moved, other=0.0)
    square = tl.load(scale) * tl.load(scale)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = person * count + place
    strength = tl.load(weight + row, mask=place < count, other=0.0)
    live = strength > 0
    covers, thickness = amount(cover, clothes + person * CLOTHES, row, live, CLOTHES)
    waves = tl.zeros([ROWS, TILE], tl.float32)
    if DEPTH:
        smooth = tl.zeros([ROWS], tl.float32)
        if FIELD > 0:
            waves, smooth = amount(basis, field + person * FIELD, row, live, FIELD)
        at = first + place * 3
        r, gx, gy, gz, by_focal, by_cloth, inverse, b0, b1, b2 = depth_row(
            posed, at, xy, row, live, camera, thickness, smooth, log_depth, sigma
        )
        by_wave = -inverse
        by_scale = -inverse
    else:
        at = first + place
        r, gx, gy, gz, by_focal, by_cloth = contour_row(
            posed, at, xy, normal, row, live, camera, thickness, sigma
        )
        by_scale = tl.zeros([ROWS], tl.float32)
        by_wave = by_scale
        b0, b1, b2 = by_scale + 1, by_scale, by_scale
    root, gx, gy, gz = _weighted(r, gx, gy, gz, strength, live, square)
    # G_k^T g by joint.
    hx = _of(j, 0) * gx[:, None] + _of(j, 3) * gy[:, None] + _of(j, 6) * gz[:, None]
    hy = _of(j, 1) * gx[:, None] + _of(j, 4) * gy[:, None] + _of(j, 7) * gz[:, None]
    hz = _of(j, 2) * gx[:, None] + _of(j, 5) * gy[:, None] + _of(j, 8) * gz[:, None]
    by_wave = tl.where(live, by_wave * root, 0.0)[:, None]
    by_beta = tl.zeros([ROWS, TILE], tl.float32)
    w = tl.zeros([ROWS, TILE], tl.float32)
    qx, qy, qz = w, w, w
    for corner in tl.static_range(3):
        if DEPTH or corner == 0:
            share = b0
            if corner == 1:
                share = b1
            if corner == 2:
                share = b2
            share = tl.where(live, share, 0.0)
            vertex = tl.load(index + at + corner, mask=live, other=0)
            x, y, z = load3(rest, at + corner, live)
            v = share[:, None] * tl.load(
                weights + vertex[:, None] * 24 + lane[None], mask=live[:, None] & bones[None], other=0.0
            )
            w += v
            qx, qy, qz = qx + v * x[:, None], qy + v * y[:, None], qz + v * z[:, None]
            d = shapedirs + vertex[:, None] * 3 * BETAS + lane[None]
            some = live[:, None] & is_beta[None]
            by_beta += tl.sum(v * hx, 1)[:, None] * tl.load(d, mask=some, other=0.0)
            by_beta += tl.sum(v * hy, 1)[:, None] * tl.load(d + BETAS, mask=some, other=0.0)
            by_beta += tl.sum(v * hz, 1)[:, None] * tl.load(d + 2 * BETAS, mask=some, other=0.0)
    by_beta += gx[:, None] * _turned(w, shape_x) + gy[:, None] * _turned(w, shape_y)
    by_beta += gz[:, None] * _turned(w, shape_z)
    # What hangs below each joint, about that joint.
    ax = _of(j, 0) * qx + _of(j, 1) * qy + _of(j, 2) * qz + _of(j, 9) * w
    ay = _of(j, 3) * qx + _of(j, 4) * qy + _of(j, 5) * qz + _of(j, 10) * w
    az = _of(j, 6) * qx + _of(j, 7) * qy + _of(j, 8) * qz + _of(j, 11) * w
    w = _turned(w, below_tile)
    ax = _turned(ax, below_tile) - w * _of(j, 12)
    ay = _turned(ay, below_tile) - w * _of(j, 13)
    az = _turned(az, below_tile) - w * _of(j, 14)
    cx = ay * gz[:, None] - az * gy[:, None]
    cy = az * gx[:, None] - ax * gz[:, None]
    cz = ax * gy[:, None] - ay * gx[:, None]
    tx = cx * _of(p, 0) + cy * _of(p, 3) + cz * _of(p, 6)
    ty = cx * _of(p, 1) + cy * _of(p, 4) + cz * _of(p, 7)
    tz = cx * _of(p, 2) + cy * _of(p, 5) + cz * _of(p, 8)
    by_x, by_y, by_z, dolly = _by_place(gx, gy, gz, camera)
    # In the order of depthfit.state.StepLayout, then the image's, then the residual.
    here = place < count
    to = out + (person * total_rows + first_row + place) * WIDTH
    at, some = to[:, None] + 3 * lane[None], here[:, None] & (lane < TURNS)[None]
    tl.store(at, tx, mask=some)
    tl.store(at + 1, ty, mask=some)
    tl.store(at + 2, tz, mask=some)
    tl.store(to[:, None] + 3 * TURNS + lane[None], by_beta, mask=here[:, None] & (lane < BETAS)[None])
    to += 3 * TURNS + BETAS
    tl.store(to, by_x, mask=here)
    tl.store(to + 1, by_y, mask=here)
    tl.store(to + 2, by_z, mask=here)
    to += 3
    by_cloth = tl.where(live, by_cloth * root, 0.0)
    tl.store(
        to[:, None] + lane[None], covers * by_cloth[:, None], mask=here[:, None] & (lane < CLOTHES)[None]
    )
    to += CLOTHES
    tl.store(to[:, None] + lane[None], waves * by_wave, mask=here[:, None] & (lane < FIELD)[None])
    to += FIELD
    tl.store(to, tl.where(live, by_focal * root + dolly, 0.0), mask=here)
    tl.store(to + 1, tl.where(live, by_scale * root, 0.0), mask=here)
    tl.store(to + 2, tl.where(live, r * root, 0.0), mask=here)
    for pad in tl.static_range(PAD):
        tl.store(to + 3 + pad, tl.zeros([ROWS], tl.float32), mask=here)


@triton.jit
def _rigid_kernel(
    posed, weight, xy, normal, sigma, cover, basis, log_depth,
    joint, camera, clothes, field, scale, out, count, first, total, first_row, total_rows,
    DEPTH: tl.constexpr, CLOTHES: tl.constexpr, FIELD: tl.constexpr,
    WIDTH: tl.constexpr, PAD: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(1).to(tl.int64)
    camera += person * 12
    posed += person * total * 3
    lane = tl.arange(0, TILE)
    square = tl.load(scale) * tl.load(scale)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = person * count + place
    strength = tl.load(weight + row, mask=place < count, other=0.0)
    live = strength > 0
    covers, thickness = amount(cover, clothes + person * CLOTHES, row, live, CLOTHES)
    if DEPTH:
        smooth = tl.zeros([ROWS], tl.float32)
        if FIELD > 0:
            _, smooth = amount(basis, field + person * FIELD, row, live, FIELD)
        at = first + place * 3
        r, gx, gy, gz, by_focal, by_cloth, inverse, b0, b1, b2 = depth_row(
            posed, at, xy, row, live, camera, thickness, smooth, log_depth, sigma
        )
        by_scale = -inverse
        x, y, z = load3(posed, at, live)
        x, y, z = b0 * x, b0 * y, b0 * z
        sx, sy, sz = load3(posed, at + 1, live)
        x, y, z = x + b1 * sx, y + b1 * sy, z + b1 * sz
        sx, sy, sz = load3(posed, at + 2, live)
        x, y, z = x + b2 * sx, y + b2 * sy, z + b2 * sz
    else:
        r, gx, gy, gz, by_focal, by_cloth = contour_row(
            posed, first + place, xy, normal, row, live, camera, thickness, sigma
        )
        by_scale = tl.zeros([ROWS], tl.float32)
        x, y, z = load3(posed, first + place, live)
    root, gx, gy, gz = _weighted(r, gx, gy, gz, strength, live, square)
    cx, cy, cz = tl.load(camera + 3), tl.load(camera + 4), tl.load(camera + 5)
    # About the pelvis.
    hub = joint + person * 360
    x, y, z = (
        tl.where(live, x - cx - tl.load(hub + 12), 0.0),
        tl.where(live, y - cy - tl.load(hub + 13), 0.0),
        tl.where(live, z - cz - tl.load(hub + 14), 0.0),
    )
    by_x, by_y, by_z, dolly = _by_place(gx, gy, gz, camera)
    here = place < count
    to = out + (person * total_rows + first_row + place) * WIDTH
    tl.store(to, y * gz - z * gy, mask=here)
    tl.store(to + 1, z * gx - x * gz, mask=here)
    tl.store(to + 2, x * gy - y * gx, mask=here)
    tl.store(to + 3, by_x, mask=here)
    tl.store(to + 4, by_y, mask=here)
    tl.store(to + 5, by_z, mask=here)
    to += 6
    by_cloth = tl.where(live, by_cloth * root, 0.0)
    tl.store(
        to[:, None] + lane[None], covers * by_cloth[:, None], mask=here[:, None] & (lane < CLOTHES)[None]
    )
    to += CLOTHES
    tl.store(to, tl.where(live, by_focal * root + dolly, 0.0), mask=here)
    tl.store(to + 1, tl.where(live, by_scale * root, 0.0), mask=here)
    tl.store(to + 2, tl.where(live, r * root, 0.0), mask=here)
    for pad in tl.static_range(PAD):
        tl.store(to + 3 + pad, tl.zeros([ROWS], tl.float32), mask=here)


def normal_block(body: Body, surface: Surface, scales: dict[str, Tensor], layout: StepLayout) -> PersonBlock:
    """The ``depth`` and ``contour`` rows' part of the normal equations, robust ``scales`` () in sigmas.

    The same as the sum of both terms' :func:`depthfit.residuals.rows.normal_block`; see :func:`fits`.
    """
    columns = surface_columns(body, surface, scales, layout)
    size = layout.size + NUM_SHARED + 1
    return split_gram((columns.mT @ columns)[:, :size, :size], layout)


def surface_columns(body: Body, surface: Surface, scales: dict[str, Tensor], layout: StepLayout) -> Tensor:
    """(N, rows, columns) depth rows, then contour rows, weighted: a step's columns, the image's, the residual
    and zeros."""
    tables, size = surface.tables, layout.size + NUM_SHARED + 1
    pad = -size % _ALIGN
    n, samples, pairs = len(tables.joint), surface.depth.weight.shape[1], surface.contour.weight.shape[1]
    out = tables.joint.new_empty(n, samples + pairs, size + pad)
    for term, scale in scales.items():
        tensors, count, first = arguments(surface, term)
        if not count:
            continue
        first_row = 0 if term == "depth" else samples
        if layout.is_rigid:
            _rigid_kernel[(triton.cdiv(count, _RIGID_ROWS), n)](
                surface.posed, *tensors, tables.joint, tables.camera, tables.clothes, tables.field, scale,
                out, count, first, surface.index.shape[1], first_row, samples + pairs,
                DEPTH=term == "depth", CLOTHES=layout.num_clothes, FIELD=tables.field.shape[1],
                WIDTH=size + pad, PAD=pad, ROWS=_RIGID_ROWS,
            )  # fmt: skip
            continue
        _columns_kernel[(triton.cdiv(count, _ROWS), n)](
            surface.index, surface.rest, surface.posed, body.weights, body.shapedirs, _below(out.device),
            *tensors, tables.joint, tables.frame, tables.shape, tables.camera, tables.clothes, tables.field,
            scale, out, count, first, surface.index.shape[1], first_row, samples + pairs,
            DEPTH=term == "depth", CLOTHES=layout.num_clothes, FIELD=layout.num_field,
            BETAS=layout.num_betas, TURNS=_TURNS, WIDTH=size + pad, PAD=pad, ROWS=_ROWS, num_warps=_WARPS,
        )  # fmt: skip
    return out
