"""Z-buffer in two Triton kernels, for CUDA.

The same arithmetic in the same order as :mod:`depthfit.raster.torch_raster` (snapped corners, edges in
float64, no fused multiply-add), so that the same triangles win. One lane a triangle walks the pixels of its
box and lowers ``depth bits << 32 | face`` with a 64-bit atomic minimum: ties go to the lowest face whatever
the order. A second kernel turns keys into fragments. Nothing is asked of the device, so calls can be captured
in a CUDA graph.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from depthfit.raster.interface import NEAR, Fragments
from depthfit.raster.torch_raster import EMPTY, FLAT, SUBPIXEL

_LANES = 128


@triton.jit
def _project(vertices, vertex, k00, k01, k02, k11, k12, live, NEAR: tl.constexpr, SUBPIXEL: tl.constexpr):
    """u, v snapped to the subpixel grid, and 1/z (zero where not visible), float64."""
    x = tl.load(vertices + vertex * 3, mask=live, other=0.0).to(tl.float64)
    y = tl.load(vertices + vertex * 3 + 1, mask=live, other=0.0).to(tl.float64)
    z = tl.load(vertices + vertex * 3 + 2, mask=live, other=0.0).to(tl.float64)
    visible = (tl.abs(x + y + z) < float("inf")) & (z >= NEAR)
    inverse = tl.where(visible, 1.0 / tl.where(visible, z, 1.0), 0.0)
    x = tl.where(visible, x, 0.0) * inverse
    y = tl.where(visible, y, 0.0) * inverse
    u = (k00 * x + k01 * y + k02) * SUBPIXEL
    v = (k11 * y + k12) * SUBPIXEL
    # Adding and taking off 1.5 x 2^52 rounds halves to even, as torch.round does.
    u = ((u + 6755399441055744.0) - 6755399441055744.0) / SUBPIXEL
    v = ((v + 6755399441055744.0) - 6755399441055744.0) / SUBPIXEL
    return u, v, inverse


@triton.jit
def _camera(K, mesh):
    k = K + mesh * 9
    k00, k01, k02 = tl.load(k).to(tl.float64), tl.load(k + 1).to(tl.float64), tl.load(k + 2).to(tl.float64)
    return k00, k01, k02, tl.load(k + 4).to(tl.float64), tl.load(k + 5).to(tl.float64)


@triton.jit
def _draw_kernel(
    vertices, faces, K, keys, num_vertices, num_faces, width, height,
    CULL: tl.constexpr, NEAR: tl.constexpr, SUBPIXEL: tl.constexpr, FLAT: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    mesh = tl.program_id(1).to(tl.int64)
    face = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = face < num_faces
    k00, k01, k02, k11, k12 = _camera(K, mesh)
    base = vertices + mesh * num_vertices * 3
    a = tl.load(faces + face * 3, mask=live, other=0)
    b = tl.load(faces + face * 3 + 1, mask=live, other=0)
    c = tl.load(faces + face * 3 + 2, mask=live, other=0)
    u0, v0, i0 = _project(base, a, k00, k01, k02, k11, k12, live, NEAR, SUBPIXEL)
    u1, v1, i1 = _project(base, b, k00, k01, k02, k11, k12, live, NEAR, SUBPIXEL)
    u2, v2, i2 = _project(base, c, k00, k01, k02, k11, k12, live, NEAR, SUBPIXEL)
    left = tl.maximum(tl.ceil(tl.minimum(tl.minimum(u0, u1), u2)), 0.0)
    right = tl.minimum(tl.floor(tl.maximum(tl.maximum(u0, u1), u2)), width - 1.0)
    top = tl.maximum(tl.ceil(tl.minimum(tl.minimum(v0, v1), v2)), 0.0)
    bottom = tl.minimum(tl.floor(tl.maximum(tl.maximum(v0, v1), v2)), height - 1.0)
    area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
    size = -area if CULL else tl.abs(area)
    keep = live & (right >= left) & (bottom >= top) & (i0 > 0) & (i1 > 0) & (i2 > 0) & (size > FLAT)
    wide = tl.where(keep, right - left, 0.0).to(tl.int32) + 1
    high = tl.where(keep, bottom - top, 0.0).to(tl.int32) + 1
    steps = tl.max(tl.where(keep, wide * high, 0), 0)
    if steps > 0:
        x, y = tl.where(keep, left, 0.0), tl.where(keep, top, 0.0)
        u0, u1, u2, v0, v1, v2 = u0 - x, u1 - x, u2 - x, v0 - y, v1 - y, v2 - y
        # Edge i runs from corner i to i + 1 and belongs to the weight of corner i + 2.
        x0, x1, x2 = v0 - v1, v1 - v2, v2 - v0
        y0, y1, y2 = u1 - u0, u2 - u1, u0 - u2
        e0, e1, e2 = -(x0 * u0 + y0 * v0), -(x1 * u1 + y1 * v1), -(x2 * u2 + y2 * v2)
        sign = tl.where(e0 + e1 + e2 > 0, 1.0, -1.0).to(tl.float64)
        x0, x1, x2, y0, y1, y2 = x0 * sign, x1 * sign, x2 * sign, y0 * sign, y1 * sign, y2 * sign
        e0, e1, e2 = e0 * sign, e1 * sign, e2 * sign
        xi = (x0 * i2 + x1 * i0) + x2 * i1
        yi = (y0 * i2 + y1 * i0) + y2 * i1
        ei = (e0 * i2 + e1 * i0) + e2 * i1
        twice = (e0 + e1) + e2
        pixel = (mesh * height + y.to(tl.int64)) * width + x.to(tl.int64)
        dx = tl.zeros([LANES], tl.int32)
        dy = tl.zeros([LANES], tl.int32)
        step = 0
        while step < steps:
            fx, fy = dx.to(tl.float64), dy.to(tl.float64)
            w0 = (x0 * fx + y0 * fy) + e0
            w1 = (x1 * fx + y1 * fy) + e1
            w2 = (x2 * fx + y2 * fy) + e2
            wi = (xi * fx + yi * fy) + ei
            inside = keep & (dy < high) & (w0 >= 0) & (w1 >= 0) & (w2 >= 0) & (wi > 0)
            depth = (twice / tl.where(inside, wi, 1.0)).to(tl.float32)
            key = (depth.to(tl.int32, bitcast=True).to(tl.int64) << 32) | face.to(tl.int64)
            tl.atomic_min(keys + pixel + dy * width + dx, key, mask=inside, sem="relaxed")
            step += 1
            dx += 1
            over = dx == wide
            dx = tl.where(over, 0, dx)
            dy = tl.where(over, dy + 1, dy)


@triton.jit
def _resolve_kernel(
    vertices, faces, K, keys, face_out, bary_out, depth_out, num_vertices, width, height,
    EMPTY: tl.constexpr, NEAR: tl.constexpr, SUBPIXEL: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    mesh = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * LANES + tl.arange(0, LANES)
    live = pixel < width * height
    place = mesh * width * height + pixel
    key = tl.load(keys + place, mask=live, other=EMPTY)
    hit = live & (key != EMPTY)
    face = tl.where(hit, key & 0xFFFFFFFF, -1)
    tl.store(face_out + place, face, mask=live)
    k00, k01, k02, k11, k12 = _camera(K, mesh)
    base = vertices + mesh * num_vertices * 3
    a = tl.load(faces + face * 3, mask=hit, other=0)
    b = tl.load(faces + face * 3 + 1, mask=hit, other=0)
    c = tl.load(faces + face * 3 + 2, mask=hit, other=0)
    u0, v0, i0 = _project(base, a, k00, k01, k02, k11, k12, hit, NEAR, SUBPIXEL)
    u1, v1, i1 = _project(base, b, k00, k01, k02, k11, k12, hit, NEAR, SUBPIXEL)
    u2, v2, i2 = _project(base, c, k00, k01, k02, k11, k12, hit, NEAR, SUBPIXEL)
    x, y = (pixel % width).to(tl.float64), (pixel // width).to(tl.float64)
    u0, u1, u2, v0, v1, v2 = u0 - x, u1 - x, u2 - x, v0 - y, v1 - y, v2 - y
    # The share of a corner is the area opposite to it.
    s2, s0, s1 = u0 * v1 - v0 * u1, u1 * v2 - v1 * u2, u2 * v0 - v2 * u0
    sign = tl.where(s2 + s0 + s1 > 0, 1.0, -1.0).to(tl.float64)
    s0, s1, s2 = tl.maximum(s0 * sign, 0.0), tl.maximum(s1 * sign, 0.0), tl.maximum(s2 * sign, 0.0)
    w0, w1, w2 = s0 * i0, s1 * i1, s2 * i2
    total = tl.where(hit, (w0 + w1) + w2, 1.0)
    kind = depth_out.dtype.element_ty
    tl.store(bary_out + place * 3, tl.where(hit, w0 / total, 0.0).to(kind), mask=live)
    tl.store(bary_out + place * 3 + 1, tl.where(hit, w1 / total, 0.0).to(kind), mask=live)
    tl.store(bary_out + place * 3 + 2, tl.where(hit, w2 / total, 0.0).to(kind), mask=live)
    depth = tl.where(hit, ((s0 + s1) + s2) / total, float("inf"))
    tl.store(depth_out + place, depth.to(kind), mask=live)


def rasterize(
    vertices: Tensor, faces: Tensor, K: Tensor, size: tuple[int, int], cull_backfaces: bool
) -> Fragments:
    """See ``depthfit.raster.interface.rasterize``, which checks the arguments."""
    vertices, faces, K = vertices.contiguous(), faces.contiguous(), K.contiguous()
    (n, num_vertices, _), (height, width) = vertices.shape, size
    keys = torch.full((n, height, width), EMPTY, dtype=torch.int64, device=vertices.device)
    face = torch.empty_like(keys)
    bary = vertices.new_empty(n, height, width, 3)
    depth = vertices.new_empty(n, height, width)
    if not n:
        return Fragments(face, bary, depth)
    numbers = {"NEAR": NEAR, "SUBPIXEL": SUBPIXEL, "LANES": _LANES, "enable_fp_fusion": False}
    _draw_kernel[(triton.cdiv(len(faces), _LANES), n)](
        vertices, faces, K, keys, num_vertices, len(faces), width, height,
        CULL=cull_backfaces, FLAT=FLAT, **numbers,
    )  # fmt: skip
    _resolve_kernel[(triton.cdiv(width * height, _LANES), n)](
        vertices, faces, K, keys, face, bary, depth, num_vertices, width, height, EMPTY=EMPTY, **numbers
    )
    return Fragments(face, bary, depth)
