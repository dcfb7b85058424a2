"""Where an image's focal length comes from: cameras.json, EXIF, the depth estimator, or a prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.camera import focal_from_35mm, fov_to_focal, image_center
from depthfit.errors import InputError
from depthfit.evidence.exif import ExifFocal
from depthfit.evidence.files import positive_number, read_json, suggest

SIGMA_GIVEN = 0.01
"""Log-focal sigma of a calibrated camera; cameras.json may say its own."""
SIGMA_EXIF = 0.05
"""Of EXIF: the 35 mm equivalent is a whole number of mm, and takes no notice of small crops."""
SIGMA_DEPTH = 0.25
"""Of a depth network's own focal: two thirds of its focals are within 25 %."""
SIGMA_PRIOR = 0.35
"""Of knowing nothing: one sigma spans 40 to 73 degrees across the longer side, phones to short telephoto."""
PRIOR_FOV_DEGREES = 55.0
"""Across the longer side, so that turning the camera changes nothing."""
NOTHING_KNOWN = "prior"
"""Source of the camera of an image that nothing tells the focal of."""
PLAUSIBLE_FOCAL = (0.2, 50.0)
"""Focal lengths per longer side that are believed: fisheye to the longest telephoto."""
_ENTRY_KEYS = ("focal_px", "K", "sigma_log_focal")
_SQUARE = 0.01
"""Largest difference of K's two focal lengths, and its largest skew, as a share of the focal length."""


@dataclass(frozen=True)
class CameraPrior:
    """What is known of an image's camera before the fit.

    Attributes:
        focal_px: Most likely focal length.
        sigma_log_focal: Standard deviation of its logarithm.
        center: (x, y) px, principal point; fixed.
        source: ``cameras.json``, ``exif``, ``depth`` or ``prior``.
    """

    focal_px: float
    sigma_log_focal: float
    center: tuple[float, float]
    source: str


def read_cameras(path: Path) -> dict[str, Any]:
    """Entries of cameras.json by image name; each is checked when its image is read.

    Raises:
        InputError: the file is not a JSON object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        fix = 'Write {"NAME": {"focal_px": f}} with one entry for each image.'
        raise InputError(path, "file", f"a JSON {type(content).__name__}, not an object", fix)
    return content


def given_camera(path: Path, name: str, entry: Any, image_size: tuple[int, int]) -> CameraPrior:
    """The camera of one entry of cameras.json: ``focal_px`` or ``K``, and ``sigma_log_focal``.

    Raises:
        InputError: the entry cannot be used.
    """
    form = 'Write {"focal_px": f} or {"K": [[f, 0, cx], [0, f, cy], [0, 0, 1]]}.'
    if not isinstance(entry, dict):
        raise InputError(path, name, f"{entry!r}", form)
    for key in entry:
        if key not in _ENTRY_KEYS:
            raise InputError(path, f"{name}.{key}", "unknown key", suggest(key, _ENTRY_KEYS, form))
    if ("focal_px" in entry) == ("K" in entry):
        found = "both focal_px and K" if "K" in entry else "neither focal_px nor K"
        raise InputError(path, name, found, form)
    sigma = SIGMA_GIVEN
    if "sigma_log_focal" in entry:
        fix = "It is the standard deviation of log focal, such as 0.02."
        sigma = positive_number(path, f"{name}.sigma_log_focal", entry["sigma_log_focal"], fix)
    if "K" in entry:
        focal, center = _from_matrix(path, f"{name}.K", entry["K"], form)
    else:
        focal = positive_number(path, f"{name}.focal_px", entry["focal_px"], form)
        center = _center(image_size)
    check_focal(path, f"{name}.{'K' if 'K' in entry else 'focal_px'}", focal, image_size)
    return CameraPrior(focal, sigma, center, "cameras.json")


def check_focal(source: str | Path, field: str, focal_px: float, image_size: tuple[int, int]) -> None:
    """Refuse a focal length in another unit: millimetres, or shares of the image's size.

    Raises:
        InputError: no camera has that focal length (px) for an image of ``image_size`` (width, height) px.
    """
    low, high = PLAUSIBLE_FOCAL
    if not low <= focal_px / max(image_size) <= high:
        found = "{:g} px for an image of {} x {}".format(focal_px, *image_size)
        fix = "Give pixels of this image: mm / the sensor's width in mm * the image's width in px."
        raise InputError(source, field, found, fix)


def exif_camera(exif: ExifFocal, image_size: tuple[int, int]) -> tuple[CameraPrior | None, str | None]:
    """The camera that EXIF tells of, or ``None`` with the reason why its data cannot be used.

    The 35 mm equivalent goes by the diagonals; without one, the focal length with the sensor's
    resolution, scaled to the image's present size.
    """
    longer = max(image_size)
    if exif.recorded_size is not None:
        before = max(exif.recorded_size) / min(exif.recorded_size)
        now = longer / min(image_size)
        if abs(before / now - 1) > 0.02:
            size = "{} x {}".format(*exif.recorded_size)
            return None, f"EXIF describes an image of {size}: this one was cropped, its focal is unknown"
    if exif.equivalent_mm is not None:
        focal = float(focal_from_35mm(exif.equivalent_mm, *image_size))
    elif exif.pixels is not None:
        focal = exif.pixels * (longer / max(exif.recorded_size) if exif.recorded_size else 1.0)
    else:
        return None, None
    low, high = PLAUSIBLE_FOCAL
    if not low * longer <= focal <= high * longer:
        return None, f"EXIF claims a focal length of {focal:.4g} px for {longer} px: not believed"
    return CameraPrior(focal, SIGMA_EXIF, _center(image_size), "exif"), None


def depth_camera(focal_px: float, image_size: tuple[int, int]) -> CameraPrior:
    """The camera that a depth network assumed."""
    return CameraPrior(focal_px, SIGMA_DEPTH, _center(image_size), "depth")


def prior_camera(image_size: tuple[int, int]) -> CameraPrior:
    """A camera of ``PRIOR_FOV_DEGREES``, for an image of which nothing is known."""
    focal = float(fov_to_focal(PRIOR_FOV_DEGREES, max(image_size)))
    return CameraPrior(focal, SIGMA_PRIOR, _center(image_size), NOTHING_KNOWN)


def _center(image_size: tuple[int, int]) -> tuple[float, float]:
    x, y = image_center(*image_size).tolist()
    return x, y


def _from_matrix(path: Path, field: str, value: Any, form: str) -> tuple[float, tuple[float, float]]:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(path, field, f"{value!r} is no matrix of numbers", form) from None
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError(path, field, f"shape {matrix.shape}, or numbers that are not finite", form)
    fx, fy = matrix[0, 0], matrix[1, 1]
    if fx <= 0 or fy <= 0 or not np.allclose(matrix[[1, 2, 2, 2], [0, 0, 1, 2]], [0, 0, 0, 1]):
        raise InputError(path, field, f"{matrix.tolist()} is no camera matrix", form)
    if abs(math.log(fx / fy)) > _SQUARE or abs(matrix[0, 1]) > _SQUARE * fx:
        found = f"fx = {fx:g}, fy = {fy:g}, skew = {matrix[0, 1]:g}"
        fix = "depthfit has one focal length: resample the image to square pixels without skew."
        raise InputError(path, field, found, fix)
    return math.sqrt(fx * fy), (float(matrix[0, 2]), float(matrix[1, 2]))
