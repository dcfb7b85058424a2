"""Oracle: one ray per pixel against every triangle, in float64 numpy.

Moller and Trumbore, "Fast, Minimum Storage Ray/Triangle Intersection" (1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 0.01


@dataclass
class RayHits:
    """face, bary, depth as in ``Fragments``; ``margin`` (H, W) px, from the pixel to the nearest edge of any
    triangle; ``runner_up`` (H, W) m, z of the second hit.
    """

    face: np.ndarray
    bary: np.ndarray
    depth: np.ndarray
    margin: np.ndarray
    runner_up: np.ndarray


def cast(vertices: np.ndarray, faces: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> RayHits:
    height, width = size
    corners = vertices[faces].astype(np.float64)
    keep = np.isfinite(corners).all((1, 2)) & (np.nan_to_num(corners[:, :, 2], nan=-1) >= NEAR).all(1)
    ids = np.flatnonzero(keep)
    a, b, c = corners[ids].transpose(1, 0, 2)
    far = np.full(size, np.inf)
    hits = RayHits(np.full(size, -1), np.zeros((*size, 3)), far.copy(), far.copy(), far.copy())
    if len(ids) == 0:
        return hits
    inverse = np.linalg.inv(K.astype(np.float64))
    e1, e2 = b - a, c - a
    screen = corners[ids] @ K.T.astype(np.float64)
    screen = screen[..., :2] / screen[..., 2:]
    for y in range(height):
        for x in range(width):
            ray = inverse @ np.array([x, y, 1.0])
            p = np.cross(ray, e2)
            det = (e1 * p).sum(-1)
            with np.errstate(divide="ignore", invalid="ignore"):
                s = -a
                w1 = (s * p).sum(-1) / det
                q = np.cross(s, e1)
                w2 = (q @ ray) / det
                z = (e2 * q).sum(-1) / det
            w0 = 1 - w1 - w2
            inside = (w0 >= 0) & (w1 >= 0) & (w2 >= 0)
            hits.margin[y, x] = _edge_distance(screen, np.array([x, y], float)).min()
            if not inside.any():
                continue
            order = np.argsort(np.where(inside, z, np.inf), kind="stable")
            first = order[0]
            hits.face[y, x], hits.depth[y, x] = ids[first], z[first]
            hits.bary[y, x] = w0[first], w1[first], w2[first]
            if inside.sum() > 1:
                hits.runner_up[y, x] = z[order[1]]
    return hits


def _edge_distance(screen: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Distance in px from ``point`` to the edges of every triangle (T, 3, 2)."""
    start, end = screen, np.roll(screen, -1, 1)
    along = end - start
    length = np.maximum((along**2).sum(-1), 1e-30)
    t = np.clip(((point - start) * along).sum(-1) / length, 0, 1)
    return np.linalg.norm(start + t[..., None] * along - point, axis=-1).min(-1)
