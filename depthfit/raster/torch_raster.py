"""Z-buffer in plain torch, for CPU and GPU.

Triangles whose bounding box holds no pixel centre are dropped first: on a body in a small window that is most
of them. The pixels of the other boxes are listed one after another, tested against the three edges, and
the nearest is kept by a scattered minimum over ``depth bits << 32 | face``, so that ties go to the lowest
face whatever the order.

Corners are snapped to 2^-20 px and edges evaluated in float64, which makes the edge functions of triangles
under some 64 px exact: the two triangles of an edge agree on which side a pixel lies, and no pixel falls
between them. Edge functions and perspective-correct weights: Pineda, "A Parallel Algorithm for Polygon
Rasterization" (SIGGRAPH 1988); Heckbert and Moreton, "Interpolation for Polygon Texture Mapping" (1991).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.raster.interface import NEAR, Fragments
from depthfit.struct import TensorStruct

SUBPIXEL = 2.0**20
FLAT = 1e-7
"""Triangles of less than half this area in px^2 are a line: their weights would be rounding errors."""
_TRIANGLES_PER_SLAB = 1 << 21
"""Triangles set up at once; a slab takes about 300 bytes for each."""
_PIXELS_PER_CHUNK = {"cpu": 1 << 14, "cuda": 1 << 23}
"""Candidate pixels tested at once; about 200 bytes for each. A CPU's caches hold what is small."""
_WIDE = 4
"""Mean px of a box's rows from which it pays to find out where the triangle begins and ends in them."""
_TILE = 16
"""px, the side of the squares whose farthest pixel tells that a triangle behind it is hidden."""
EMPTY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Boxes(TensorStruct):
    """Triangles whose bounding box holds at least one pixel of the window. T of them.

    Attributes:
        mesh: (T,) index of the mesh.
        face: (T,) index of the face.
        x, y: (T,) left and top pixel of the box.
        width, height: (T,) of the box in px.
        back: (T,) bool, whether it is seen from inside.
    """

    mesh: Tensor
    face: Tensor
    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    back: Tensor


def project_to_screen(vertices: Tensor, K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel coordinates u, v and 1/z of ``vertices`` (N, V, 3), each (N, V) float64.

    1/z is zero for a vertex that is nearer than ``NEAR`` or not finite; its u and v are then zero too.
    """
    x, y, z = vertices.double().unbind(-1)
    visible = torch.isfinite(x + y + z) & (z >= NEAR)
    inverse = torch.where(visible, 1 / z, 0.0)
    x, y = torch.where(visible, x, 0.0) * inverse, torch.where(visible, y, 0.0) * inverse
    k = K.double()[..., None]
    u = k[:, 0, 0] * x + k[:, 0, 1] * y + k[:, 0, 2]
    v = k[:, 1, 1] * y + k[:, 1, 2]
    return u, v, inverse


def rasterize(
    vertices: Tensor, faces: Tensor, K: Tensor, size: tuple[int, int], cull_backfaces: bool
) -> Fragments:
    """See ``depthfit.raster.interface.rasterize``, which checks the arguments."""
    n, (height, width) = len(vertices), size
    u, v, inverse = project_to_screen(vertices, K)
    u, v = torch.round(u * SUBPIXEL) / SUBPIXEL, torch.round(v * SUBPIXEL) / SUBPIXEL
    screen = torch.stack([u, v, inverse], -1)
    keys = torch.full((n * height * width,), EMPTY, dtype=torch.int64, device=vertices.device)
    slab = max(1, _TRIANGLES_PER_SLAB // max(1, len(faces)))
    for start in range(0, n, slab):
        part = slice(start, start + slab)
        boxes = find_boxes(screen[part], faces, size, cull_backfaces)
        drawn = keys[start * height * width :]
        if cull_backfaces:
            _draw(drawn, screen[part], faces, boxes, width, height)
            continue
        _draw(drawn, screen[part], faces, boxes[~boxes.back], width, height)
        # Most of what faces away is hidden by now.
        back = boxes[boxes.back]
        pixels = drawn[: len(screen[part]) * height * width].view(-1, height, width)
        _draw(drawn, screen[part], faces, back[_unhidden(pixels, screen[part], faces, back)], width, height)
    return _resolve(keys.reshape(n, height, width), screen, faces, vertices.dtype)


def find_boxes(screen: Tensor, faces: Tensor, size: tuple[int, int], cull_backfaces: bool) -> Boxes:
    """The triangles of N meshes that could be seen. ``screen`` (N, V, 3): u and v in px, 1/z, from
    ``project_to_screen``.
    """
    height, width = size
    # Vertex-major, so that one index copies the values of all meshes at once.
    u, v, inverse = (s.mT.contiguous() for s in screen.unbind(-1))
    u0, u1, u2 = (u.index_select(0, f) for f in faces.unbind(-1))
    left = torch.minimum(torch.minimum(u0, u1), u2).ceil_().clamp_(min=0)
    right = torch.maximum(torch.maximum(u0, u1), u2).floor_().clamp_(max=width - 1)
    v0, v1, v2 = (v.index_select(0, f) for f in faces.unbind(-1))
    top = torch.minimum(torch.minimum(v0, v1), v2).ceil_().clamp_(min=0)
    bottom = torch.maximum(torch.maximum(v0, v1), v2).floor_().clamp_(max=height - 1)
    # Seen from outside, corners run counter-clockwise to the eye, which is negative when y points down.
    area = (u1 - u0) * (v2 - v0) - (v1 - v0) * (u2 - u0)
    in_front = (inverse > 0).index_select(0, faces.reshape(-1)).reshape(len(faces), 3, -1).all(1)
    keep = (right >= left) & (bottom >= top) & in_front & ((-area if cull_backfaces else area.abs()) > FLAT)
    face, mesh = keep.nonzero(as_tuple=True)
    x, y = left[keep].long(), top[keep].long()
    width_px, height_px = right[keep].long() - x + 1, bottom[keep].long() - y + 1
    return Boxes(mesh, face, x, y, width_px, height_px, area[keep] > 0)


def _planes(screen: Tensor, faces: Tensor, boxes: Boxes) -> Tensor:
    """(T, 3, 4): slope in x, slope in y and value at the box's corner of the three edge functions, which are
    non-negative inside, and of 1/z times twice the area.
    """
    corners = screen.reshape(-1, 3)[boxes.mesh[:, None] * screen.shape[1] + faces[boxes.face]]
    u, v, inverse = corners.unbind(-1)
    u, v = u - boxes.x[:, None], v - boxes.y[:, None]
    u_next, v_next = u.roll(-1, -1), v.roll(-1, -1)
    # Edge i runs from corner i to i + 1 and belongs to the weight of corner i + 2.
    slope_x, slope_y = v - v_next, u_next - u
    value = -(slope_x * u + slope_y * v)
    sign = value.sum(-1, keepdim=True).sign()[:, None]
    edges = torch.stack([slope_x, slope_y, value], 1) * sign
    return torch.cat([edges, (edges * inverse.roll(-2, -1)[:, None]).sum(-1, keepdim=True)], -1)


@dataclass(frozen=True)
class _Runs(TensorStruct):
    """Pixels that lie side by side in the box of a triangle. R of them.

    Attributes:
        triangle: (R,) row of the boxes.
        row: (R,) of the pixels, from the top of the box.
        first: (R,) column of the first, from the left of the box.
        count: (R,) pixels.
    """

    triangle: Tensor
    row: Tensor
    first: Tensor
    count: Tensor


def _runs(table: Tensor, boxes: Boxes) -> _Runs:
    """Rows of the boxes. Of large boxes, without most of the pixels that are outside the triangle.

    What is left out is outside by more than rounding, so that the test of each pixel has the last word.
    """
    triangle = torch.arange(len(table), device=table.device).repeat_interleave(boxes.height)
    row = torch.arange(len(triangle), device=table.device)
    row = row - (boxes.height.cumsum(0) - boxes.height)[triangle]
    width = boxes.width[triangle]
    if int(width.sum()) < _WIDE * len(width):
        return _Runs(triangle, row, torch.zeros_like(row), width)
    planes = table[triangle]
    slope, down, corner = planes[:, :3], planes[:, 4:7] * row[:, None], planes[:, 8:11]
    # The column where each edge crosses the row.
    crossing = -(down + corner) / slope
    slack = 1e-6 + 2.0**-48 * (down.abs() + corner.abs()) / slope.abs()
    first = torch.where(slope > 0, crossing - slack, 0.0).amax(-1).ceil().clamp(min=0)
    end = torch.where(slope < 0, crossing + slack, torch.inf).amin(-1).floor().clamp(min=-1)
    last = torch.minimum(end, (width - 1).to(end))
    some = first <= last
    first = first[some].long()
    return _Runs(triangle[some], row[some], first, last[some].long() - first + 1)


def _unhidden(keys: Tensor, screen: Tensor, faces: Tensor, boxes: Boxes) -> Tensor:
    """(T,) bool: whether a triangle could lie before what is drawn: ``keys`` (N, H, W).

    The farthest of each tile of pixels is compared with the nearest corner. Where rounding might turn the
    comparison round, the answer is yes.
    """
    drawn = torch.where(keys == EMPTY, torch.inf, (keys >> 32).int().view(torch.float32))
    farthest = torch.nn.functional.max_pool2d(drawn[:, None], _TILE, ceil_mode=True)[:, 0]
    corners = screen.reshape(-1, 3)[boxes.mesh[:, None] * screen.shape[1] + faces[boxes.face]]
    u, v, inverse = corners.unbind(-1)
    extent = torch.maximum(u.amax(-1) - u.amin(-1), v.amax(-1) - v.amin(-1))
    area = (u[:, 1] - u[:, 0]) * (v[:, 2] - v[:, 0]) - (v[:, 1] - v[:, 0]) * (u[:, 2] - u[:, 0])
    # Three places a side reach every tile of a box of two tiles' width.
    columns = [(boxes.x + part) // _TILE for part in (0, (boxes.width - 1) // 2, boxes.width - 1)]
    rows = [(boxes.y + part) // _TILE for part in (0, (boxes.height - 1) // 2, boxes.height - 1)]
    behind = torch.stack([farthest[boxes.mesh, y, x] for y in rows for x in columns], -1).amax(-1)
    nearest = 1 / inverse.amax(-1)
    plain = (extent <= 2 * _TILE) & (area.abs() > 1e-2)
    return ~(plain & (behind.double() < nearest * (1 - 4e-6)))


def _draw(keys: Tensor, screen: Tensor, faces: Tensor, boxes: Boxes, width: int, height: int) -> None:
    """Lower ``keys`` (flat pixels of the slab's meshes) to the nearest triangle's key, in place."""
    if not len(boxes.mesh):
        return
    planes = _planes(screen, faces, boxes)
    # Twice the area is the sum of the edge functions anywhere.
    area = planes[:, 2, :3].sum(-1)
    table = torch.cat([planes.reshape(len(area), 12), area[:, None]], -1)
    runs = _runs(table, boxes)
    if not len(runs.count):
        # Slivers between the pixels' centres.
        return
    base = (boxes.mesh * height + boxes.y) * width + boxes.x
    ends = runs.count.cumsum(0)
    starts = ends - runs.count
    total = int(ends[-1])
    chunk = _PIXELS_PER_CHUNK.get(keys.device.type, 1 << 14)
    limits = torch.arange(0, total, chunk, device=keys.device)
    first = torch.searchsorted(ends, limits, right=True).tolist()
    last = torch.searchsorted(ends, (limits + chunk).clamp(max=total) - 1, right=True).tolist()
    for begin, a, b in zip(range(0, total, chunk), first, last, strict=True):
        stop = min(begin + chunk, total)
        some = slice(a, b + 1)
        count = ends[some].clamp(max=stop) - starts[some].clamp(min=begin)
        index = torch.arange(a, b + 1, device=keys.device)
        index = index.repeat_interleave(count, output_size=stop - begin)
        dx = torch.arange(begin, stop, device=keys.device) - (starts - runs.first)[index]
        dy, index = runs.row[index], runs.triangle[index]
        row = table[index]
        value = row[:, 0:4] * dx[:, None] + row[:, 4:8] * dy[:, None] + row[:, 8:12]
        inside = ((value[:, :3].amin(-1) >= 0) & (value[:, 3] > 0)).nonzero()[:, 0]
        depth = (row[inside, 12] / value[inside, 3]).float()
        hit = index[inside]
        key = (depth.view(torch.int32).long() << 32) | boxes.face[hit]
        keys.scatter_reduce_(0, base[hit] + dy[inside] * width + dx[inside], key, "amin")


def _resolve(keys: Tensor, screen: Tensor, faces: Tensor, dtype: torch.dtype) -> Fragments:
    """Fragments from the winning keys (N, H, W)."""
    n, height, width = keys.shape
    hit = keys != EMPTY
    face = torch.where(hit, keys & 0xFFFFFFFF, -1)
    bary = torch.zeros(n * height * width, 3, dtype=dtype, device=keys.device)
    depth = torch.full((n * height * width,), torch.inf, dtype=dtype, device=keys.device)
    chunk = _PIXELS_PER_CHUNK.get(keys.device.type, 1 << 14)
    for pixel in hit.flatten().nonzero()[:, 0].split(chunk):
        line = torch.div(pixel, width, rounding_mode="floor")
        mesh = torch.div(line, height, rounding_mode="floor")
        x, y = pixel - line * width, line - mesh * height
        corners = screen.reshape(-1, 3)[mesh[:, None] * screen.shape[1] + faces[face.flatten()[pixel]]]
        u, v, inverse = corners.unbind(-1)
        u, v = u - x[:, None], v - y[:, None]
        cross = u * v.roll(-1, -1) - v * u.roll(-1, -1)
        # Inside, all three have the sign of the triangle's area, but for rounding.
        share = (cross.roll(-1, -1) * cross.sum(-1, keepdim=True).sign()).clamp(min=0)
        weight = share * inverse
        total = weight.sum(-1, keepdim=True)
        bary[pixel] = (weight / total).to(dtype)
        depth[pixel] = (share.sum(-1) / total[:, 0]).to(dtype)
    return Fragments(face, bary.view(n, height, width, 3), depth.view(n, height, width))
