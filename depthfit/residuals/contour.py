"""Contours: the rim of the projected body against the outline of the person in the image.

The outline is the clothes', so it stands off the body by the clothes' thickness, and its sigma has a part
in pixels (the segmentation) and a part in metres on the person (clothes, hair).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from depthfit.residuals.keypoints import projection
from depthfit.residuals.rows import Rows
from depthfit.struct import TensorStruct


@dataclass(frozen=True)
class ContourMatches(TensorStruct):
    """Pairs of a rim vertex and an outline point, for N people.

    Attributes:
        vertex: (N, C) index of the rim vertex.
        xy: (N, C, 2) px, the outline point.
        normal: (N, C, 2) unit, outward.
        sigma: (N, C) px.
        weight: (N, C) in [0, 1]; zero for no pair.
        wanted: (N, C) what the weight would be had a partner been found.
        cover: (N, C, A) share of each amplitude of the clothes at the vertex.
    """

    vertex: Tensor
    xy: Tensor
    normal: Tensor
    sigma: Tensor
    weight: Tensor
    wanted: Tensor
    cover: Tensor


def contour_rows(
    points: Tensor, focal: Tensor, center: Tensor, clothes: Tensor, matches: ContourMatches
) -> Rows:
    """(normal . (projection - outline) + clothes f / z) / sigma, one row a pair.

    Args:
        points: (N, C, 3) m, the rim vertices in the camera's frame.
        focal: (N,) px; center: (N, 2) px; clothes: (N, A) m.
    """
    xy, derivative = projection(points, focal, center)
    inverse = 1 / matches.sigma
    normal = matches.normal
    scale = derivative[..., 0, 0]  # f / z
    standoff = (matches.cover @ clothes[..., None])[..., 0] * scale
    residual = ((normal * (xy - matches.xy)).sum(-1) + standoff) * inverse
    point = (normal[..., None, :] @ derivative)[..., 0, :].clone()
    point[..., 2] -= standoff * scale / focal[:, None]
    along = (normal * (xy - center[:, None])).sum(-1) + standoff
    return Rows(
        residual=residual[..., None],
        weight=matches.weight,
        point=(point * inverse[..., None])[..., None, :],
        log_focal=(along * inverse)[..., None],
        clothes=((scale * inverse)[..., None] * matches.cover)[..., None, :],
    )
