# mypy: disable-error-code="no-untyped-def"
"""Normal equations of the depth and contour rows as a Triton kernel, for CUDA.

The same mathematics as :mod:`depthfit.residuals.depth`, :mod:`.contour` and :mod:`.rows` with
:mod:`depthfit.body.points`, which are the reference. One program takes one person: it walks over the rows, 32
at a time, makes their columns in registers and adds their products to the normal equations, so that the
Jacobian never lies in memory. Columns stand in four tiles of 32 lanes,

    tile         x             y                z                other
    lanes  0-21  turns         turns            turns            0-24: clothes; 25-30: bearing, distance,
    lanes 22-31  betas         field, first 10  field, last 10   focal, depth scale, residual

which interleave to 128. Products go through the matrix units as three tf32 products each (``tf32x3``), which
keeps float32's precision.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from depthfit.body.model import Body
from depthfit.body.tree import joint_tree
from depthfit.joints import NUM_JOINTS
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
from depthfit.state import LOG_FOCAL, LOG_SCALE, NUM_SHARED, StepLayout

_ROWS, _WARPS = 32, 4
_TURNS, _SPARE = 22, 10
"""Joints that turn (root and body), and lanes beside them in each of their tiles."""
_MOST_CLOTHES = 25
"""Most amplitudes of clothes: the lanes after them hold what has no tile of its own."""


def fits(body: Body, layout: StepLayout) -> bool:
    """Whether the kernel's tiles hold a body and a layout; the plain-torch path holds any."""
    small = layout.num_betas <= _SPARE and layout.num_field <= 2 * _SPARE
    return body.posedirs is None and layout.num_clothes <= _MOST_CLOTHES and small


@lru_cache(maxsize=16)
def _constants(layout: StepLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    """(32, 32) which joints lie below which, and (128,) int32 column of each lane or -1."""
    below = torch.zeros(TILE.value, TILE.value)
    below[:NUM_JOINTS, :NUM_JOINTS] = joint_tree(torch.device("cpu"), torch.float32).below.mT
    slot = torch.full((4, TILE.value), -1, dtype=torch.int32)
    columns = torch.arange(layout.size, dtype=torch.int32)
    turns = torch.cat([columns[layout.root], columns[layout.pose]])
    slot[:3, :_TURNS] = turns.unflatten(0, (_TURNS, 3)).mT
    slot[0, _TURNS : _TURNS + layout.num_betas] = columns[layout.betas]
    for tile, part in enumerate(columns[layout.field].split(_SPARE), start=1):
        slot[tile, _TURNS : _TURNS + len(part)] = part
    slot[3, : layout.num_clothes] = columns[layout.clothes]
    rest = [layout.bearing.start, layout.bearing.start + 1, layout.distance]
    rest += [layout.size + LOG_FOCAL, layout.size + LOG_SCALE, layout.size + NUM_SHARED]
    slot[3, _MOST_CLOTHES : _MOST_CLOTHES + len(rest)] = torch.tensor(rest, dtype=torch.int32)
    return below.to(device), slot.mT.flatten().to(device)


@triton.jit
def _turned(tile, below):
    return tl.dot(tile, below, input_precision="tf32x3")


@triton.jit
def _normal_kernel(
    index, rest, posed, weights, shapedirs, below, slot,
    weight, xy, normal, sigma, cover, basis, log_depth,
    joint, frame, shape, camera, clothes, field, scale, out, count, first, total,
    DEPTH: tl.constexpr, CLOTHES: tl.constexpr, FIELD: tl.constexpr, BETAS: tl.constexpr,
    TURNS: tl.constexpr, SPARE: tl.constexpr, OWN: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    person = tl.program_id(0).to(tl.int64)
    camera += person * 12
    posed += person * total * 3
    rest += person * total * 3
    index += person * total
    lane = tl.arange(0, TILE)
    bones = lane < 24
    j = joint + person * 360 + lane * 15
    p = frame + person * 216 + lane * 9
    below_tile = tl.load(below + lane[:, None] * 32 + lane[None])
    beta = lane - TURNS
    is_turn, is_beta = lane < TURNS, (beta >= 0) & (beta < BETAS)
    # Of the shape's part that comes with the joints: (joint, lane) for each coordinate.
    s = shape + person * 72 * BETAS + lane[:, None] * 3 * BETAS + beta[None]
    moved = bones[:, None] & is_beta[None]
    shape_x = tl.load(s, mask=moved, other=0.0)
    shape_y = tl.load(s + BETAS, mask=moved, other=0.0)
    shape_z = tl.load(s + 2 * BETAS, mask=moved, other=0.0)
    square = tl.load(scale) * tl.load(scale)
    gram = tl.zeros([4 * TILE, 4 * TILE], tl.float32)
    start = 0
    while start < count:
        place = start + tl.arange(0, ROWS)
        row = person * count + place
        strength = tl.load(weight + row, mask=place < count, other=0.0)
        live = strength > 0
        covers, thickness = amount(cover, clothes + person * CLOTHES, row, live, 0, CLOTHES)
        wave_y, wave_z = tl.zeros([ROWS, TILE], tl.float32), tl.zeros([ROWS, TILE], tl.float32)
        if DEPTH:
            smooth = tl.zeros([ROWS], tl.float32)
            if FIELD > 0:
                wave_y, smooth = amount(basis, field + person * FIELD, row, live, TURNS, FIELD)
            if FIELD > SPARE:
                # Its first columns stand in lanes of turns here: they count in the sum alone.
                wave_z, smooth = amount(basis, field + person * FIELD, row, live, TURNS - SPARE, FIELD)
                wave_z = tl.where(is_turn[None], 0.0, wave_z)
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
        squared = r * r
        root = 1 + squared / square
        root = tl.where(live, tl.sqrt(strength) / root, 0.0)
        gx, gy, gz = (
            tl.where(live, gx * root, 0.0),
            tl.where(live, gy * root, 0.0),
            tl.where(live, gz * root, 0.0),
        )
        # G_k^T g by joint.
        hx = tl.load(j, mask=bones, other=0.0)[None] * gx[:, None]
        hx += tl.load(j + 3, mask=bones, other=0.0)[None] * gy[:, None]
        hx += tl.load(j + 6, mask=bones, other=0.0)[None] * gz[:, None]
        hy = tl.load(j + 1, mask=bones, other=0.0)[None] * gx[:, None]
        hy += tl.load(j + 4, mask=bones, other=0.0)[None] * gy[:, None]
        hy += tl.load(j + 7, mask=bones, other=0.0)[None] * gz[:, None]
        hz = tl.load(j + 2, mask=bones, other=0.0)[None] * gx[:, None]
        hz += tl.load(j + 5, mask=bones, other=0.0)[None] * gy[:, None]
        hz += tl.load(j + 8, mask=bones, other=0.0)[None] * gz[:, None]
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
                d = shapedirs + vertex[:, None] * 3 * BETAS + beta[None]
                some = live[:, None] & is_beta[None]
                by_beta += tl.sum(v * hx, 1)[:, None] * tl.load(d, mask=some, other=0.0)
                by_beta += tl.sum(v * hy, 1)[:, None] * tl.load(d + BETAS, mask=some, other=0.0)
                by_beta += tl.sum(v * hz, 1)[:, None] * tl.load(d + 2 * BETAS, mask=some, other=0.0)
        by_beta += gx[:, None] * _turned(w, shape_x) + gy[:, None] * _turned(w, shape_y)
        by_beta += gz[:, None] * _turned(w, shape_z)
        # What hangs below each joint, about that joint.
        ax = tl.load(j, mask=bones, other=0.0)[None] * qx + tl.load(j + 1, mask=bones, other=0.0)[None] * qy
        ax += (
            tl.load(j + 2, mask=bones, other=0.0)[None] * qz + tl.load(j + 9, mask=bones, other=0.0)[None] * w
        )
        ay = (
            tl.load(j + 3, mask=bones, other=0.0)[None] * qx
            + tl.load(j + 4, mask=bones, other=0.0)[None] * qy
        )
        ay += (
            tl.load(j + 5, mask=bones, other=0.0)[None] * qz
            + tl.load(j + 10, mask=bones, other=0.0)[None] * w
        )
        az = (
            tl.load(j + 6, mask=bones, other=0.0)[None] * qx
            + tl.load(j + 7, mask=bones, other=0.0)[None] * qy
        )
        az += (
            tl.load(j + 8, mask=bones, other=0.0)[None] * qz
            + tl.load(j + 11, mask=bones, other=0.0)[None] * w
        )
        w = _turned(w, below_tile)
        ax = _turned(ax, below_tile) - w * tl.load(j + 12, mask=bones, other=0.0)[None]
        ay = _turned(ay, below_tile) - w * tl.load(j + 13, mask=bones, other=0.0)[None]
        az = _turned(az, below_tile) - w * tl.load(j + 14, mask=bones, other=0.0)[None]
        cx = ay * gz[:, None] - az * gy[:, None]
        cy = az * gx[:, None] - ax * gz[:, None]
        cz = ax * gy[:, None] - ay * gx[:, None]
        tx = cx * tl.load(p, mask=bones, other=0.0)[None] + cy * tl.load(p + 3, mask=bones, other=0.0)[None]
        tx += cz * tl.load(p + 6, mask=bones, other=0.0)[None]
        ty = (
            cx * tl.load(p + 1, mask=bones, other=0.0)[None]
            + cy * tl.load(p + 4, mask=bones, other=0.0)[None]
        )
        ty += cz * tl.load(p + 7, mask=bones, other=0.0)[None]
        tz = (
            cx * tl.load(p + 2, mask=bones, other=0.0)[None]
            + cy * tl.load(p + 5, mask=bones, other=0.0)[None]
        )
        tz += cz * tl.load(p + 8, mask=bones, other=0.0)[None]
        tx = tl.where(is_turn[None], tx, by_beta)
        ty = tl.where(is_turn[None], ty, wave_y * by_wave)
        tz = tl.where(is_turn[None], tz, wave_z * by_wave)
        far = tl.load(camera + 6)
        by_x, by_y = gx * far, gy * far
        by_z = gx * tl.load(camera + 3) + gy * tl.load(camera + 4) + gz * tl.load(camera + 5)
        dolly = by_z - by_x * tl.load(camera + 7) - by_y * tl.load(camera + 8)
        mid = covers * tl.where(live, by_cloth * root, 0.0)[:, None]
        mid = tl.where(lane[None] == OWN, by_x[:, None], mid)
        mid = tl.where(lane[None] == OWN + 1, by_y[:, None], mid)
        mid = tl.where(lane[None] == OWN + 2, by_z[:, None], mid)
        mid = tl.where(lane[None] == OWN + 3, tl.where(live, by_focal * root + dolly, 0.0)[:, None], mid)
        mid = tl.where(lane[None] == OWN + 4, tl.where(live, by_scale * root, 0.0)[:, None], mid)
        mid = tl.where(lane[None] == OWN + 5, tl.where(live, r * root, 0.0)[:, None], mid)
        tile = tl.reshape(tl.join(tl.join(tx, tz), tl.join(ty, mid)), [ROWS, 4 * TILE])
        gram = tl.dot(tl.trans(tile), tile, gram, input_precision="tf32x3")
        start += ROWS
    out += person * SIZE * SIZE
    wide = tl.arange(0, 4 * TILE)
    column = tl.load(slot + wide)
    used = column >= 0
    tl.store(out + column[:, None] * SIZE + column[None], gram, mask=used[:, None] & used[None])


def normal_block(body: Body, surface: Surface, term: str, scale: Tensor, layout: StepLayout) -> PersonBlock:
    """The ``depth`` or ``contour`` rows' part of the normal equations.

    The same as :func:`depthfit.residuals.rows.normal_block` of the term's rows; see :func:`fits`.
    ``scale`` () is Geman-McClure's, in sigmas.
    """
    tensors, count, first = arguments(surface, term)
    tables, size = surface.tables, layout.size + NUM_SHARED + 1
    below, slot = _constants(layout, scale.device)
    out = tables.joint.new_zeros(len(tables.joint), size, size)
    if not count:
        return split_gram(out, layout)
    _normal_kernel[(len(out),)](
        surface.index, surface.rest, surface.posed, body.weights, body.shapedirs, below, slot, *tensors,
        tables.joint, tables.frame, tables.shape, tables.camera, tables.clothes, tables.field, scale, out,
        count, first, surface.index.shape[1],
        DEPTH=term == "depth", CLOTHES=layout.num_clothes, FIELD=layout.num_field, BETAS=layout.num_betas,
        TURNS=_TURNS, SPARE=_SPARE, OWN=_MOST_CLOTHES, SIZE=size, ROWS=_ROWS, num_warps=_WARPS,
    )  # fmt: skip
    return split_gram(out, layout)
