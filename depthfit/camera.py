"""The pinhole camera, and the focal lengths that other programs assume.

Camera frame: x right, y down, z forward, metres. Pixel (0, 0) is the *centre* of the top-left pixel, so an
image spans [-0.5, W - 0.5] x [-0.5, H - 0.5] and its middle is ((W - 1) / 2, (H - 1) / 2). Sizes are given
as (width, height), focal lengths in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

REGRESSOR_FOCAL = 5000.0
"""px: the focal length that HMR2.0 and TokenHMR give to their crop."""
REGRESSOR_CROP = 256
"""px: the side of that crop."""
FILM_WIDTH_MM, FILM_HEIGHT_MM = 36.0, 24.0
"""The 35 mm film frame that "35 mm equivalent" focal lengths refer to."""


def intrinsics(focal: Tensor, center: Tensor) -> Tensor:
    """Camera matrices K (*b, 3, 3) of square pixels from ``focal`` (*b) px and ``center`` (*b, 2) px."""
    zero, one = torch.zeros_like(focal), torch.ones_like(focal)
    cx, cy = center.unbind(-1)
    rows = [focal, zero, cx, zero, focal, cy, zero, zero, one]
    return torch.stack(torch.broadcast_tensors(*rows), dim=-1).unflatten(-1, (3, 3))


def project(points: Tensor, K: Tensor) -> Tensor:
    """Pixels (*b, P, 2) of camera-frame ``points`` (*b, P, 3) m under ``K`` (*b, 3, 3).

    Points with z <= 0 are not in front of the camera: their pixels have no meaning, and the caller has to
    leave them out.
    """
    homogeneous = points @ K.mT
    return homogeneous[..., :2] / homogeneous[..., 2:]


def image_center(width: Tensor | float, height: Tensor | float) -> Tensor:
    """Middle (*b, 2) px of images of ``width`` (*b) and ``height`` (*b) px."""
    size = torch.stack([torch.as_tensor(width), torch.as_tensor(height)], dim=-1)
    return (size - 1) / 2


def regressor_focal(width: Tensor | float, height: Tensor | float) -> Tensor:
    """Focal length (*b) px that HMR2.0 and TokenHMR assume for whole images: 5000 / 256 x longer side."""
    longer = torch.maximum(torch.as_tensor(width), torch.as_tensor(height))
    return longer * (REGRESSOR_FOCAL / REGRESSOR_CROP)


def full_image_translation(
    pred_cam: Tensor, box_center: Tensor, box_size: Tensor, image_size: Tensor, focal: Tensor
) -> Tensor:
    """Translation (*b, 3) m in the whole image's camera of a prediction made in a crop's camera.

    The principal point is the image's middle. 4D-Humans and TokenHMR write it as W / 2, for boxes whose
    coordinates count pixel edges. Here boxes, like all points, count pixel centres, and the middle is
    (W - 1) / 2: both are half a pixel less, so that the translation is the same.

    Args:
        pred_cam: (*b, 3) weak-perspective camera (s, tx, ty) of the crop; s > 0.
        box_center: (*b, 2) px, centre of the crop in the image.
        box_size: (*b) px, side of the square crop in the image.
        image_size: (*b, 2) px, (width, height).
        focal: (*b) px of the whole image's camera; ``regressor_focal`` for the prediction's own.
    """
    scale = box_size * pred_cam[..., 0]
    shift = 2 * (box_center - (image_size - 1) / 2) / scale[..., None]
    return torch.cat([pred_cam[..., 1:] + shift, (2 * focal / scale)[..., None]], dim=-1)


def box_camera(
    translation: Tensor, box_center: Tensor, box_size: Tensor, image_size: Tensor, focal: Tensor
) -> Tensor:
    """Crop camera (*b, 3) = (s, tx, ty) of a body at ``translation`` (*b, 3) m: the inverse of the above.

    For regressors that predict in the whole image's camera (CLIFF, or any other with a focal length of its
    own): the crop camera says where and how large the body is in the image, and holds no focal length. Other
    arguments as of ``full_image_translation``, ``focal`` being that of the regressor's own camera.
    """
    scale = 2 * focal / translation[..., 2]
    shift = 2 * (box_center - (image_size - 1) / 2) / scale[..., None]
    return torch.cat([(scale / box_size)[..., None], translation[..., :2] - shift], dim=-1)


def fov_to_focal(fov_degrees: Tensor | float, side: Tensor | float) -> Tensor:
    """Focal length (*b) px that gives a field of view of ``fov_degrees`` (*b) across ``side`` (*b) px."""
    half_angle = torch.as_tensor(fov_degrees) * (math.pi / 360)
    return torch.as_tensor(side) / (2 * torch.tan(half_angle))


def focal_from_35mm(f35: Tensor | float, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Focal length (*b) px from a 35 mm equivalent ``f35`` (*b) mm, by the ratio of the diagonals.

    The rule that Depth Pro applies to EXIF data; it does not depend on the image's orientation.
    """
    film = (FILM_WIDTH_MM**2 + FILM_HEIGHT_MM**2) ** 0.5
    width, height = torch.as_tensor(width), torch.as_tensor(height)
    return torch.as_tensor(f35) * (width**2 + height**2) ** 0.5 / film
