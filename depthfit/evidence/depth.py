"""Depth maps: reading, trusted pixels, and the edges where a near thing hides a far one.

A depth map may be of another size than its image, with the same aspect. It is never resampled: image
points are carried into it and take the nearest pixel. "Native" pixels are the depth map's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from depthfit.errors import InputError
from depthfit.evidence.files import decode_image, npz_array, open_npz, positive_number, read_bytes

DEPTH_SUFFIXES = (".npz", ".png", ".exr")
EDGE_LOG_JUMP = 0.06
"""A step of 6 % of the distance: 18 cm at 3 m, more than a body's own relief from pixel to pixel."""
EXR_CHANNELS = ("Z", "depth", "V", "Y", "R")
ASPECT_SLACK = 1.5
"""px: how far the depth map's aspect may be off the image's, from rounding its size."""
_EDGE_REACH = 2.0
"""Native px on either side of an edge over which its jump is measured: depth networks blend foreground
and background within 2-3 px."""
FARTHEST_NEAREST_M = 100.0
"""A map whose nearest reading is farther holds nobody who could be fitted: most likely it is millimetres."""
_PNG_FULL = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class DepthMap:
    """Depth of an image.

    Attributes:
        metres: (h, w) float32, z of the surface; 0 = no reading.
        scale: (2,) native px per image px, in x and y.
        focal_px: The focal length in image px that the depth was estimated with; ``None`` = unknown.
    """

    metres: np.ndarray
    scale: np.ndarray
    focal_px: float | None

    def to_native(self, points: np.ndarray) -> np.ndarray:
        """Image px (..., 2) to native px; pixel centres are whole numbers in both."""
        return (np.asarray(points) + 0.5) * self.scale - 0.5

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Native px (..., 2) to image px."""
        return (np.asarray(points) + 0.5) / self.scale - 0.5

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Depth (...) m of the native pixel nearest to image ``points`` (..., 2); 0 outside the map."""
        column, row = np.moveaxis(np.rint(self.to_native(points)).astype(np.int64), -1, 0)
        height, width = self.metres.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return np.where(inside, self.metres[np.where(inside, row, 0), np.where(inside, column, 0)], 0)


@dataclass(frozen=True)
class DepthEdges:
    """Sub-pixel points on occlusion edges, in native px.

    Attributes:
        points: (E, 2) px.
        normals: (E, 2) unit, in the image, from the nearer side to the farther one.
        jump: (E,) log of farther over nearer depth.
    """

    points: np.ndarray
    normals: np.ndarray
    jump: np.ndarray


def read_depth(path: Path, image_size: tuple[int, int]) -> DepthMap:
    """Read ``depth`` m of an npz, a 16-bit PNG in mm, or an EXR in m.

    No reading are 0, inf and NaN, and 65535 in a PNG, where the range ends. ``focallength_px`` of an
    npz counts pixels of the depth map, as Depth Pro's output has the size of its input.

    Args:
        path: The file.
        image_size: (width, height) px of the image, upright.

    Raises:
        InputError: the file cannot be used.
    """
    focal = None
    if path.suffix == ".npz":
        metres, focal = _read_npz(path)
    elif path.suffix == ".png":
        metres = _read_png(path)
    elif path.suffix == ".exr":
        metres = _read_exr(path)
    else:
        fix = f"Save depth as one of {', '.join(DEPTH_SUFFIXES)}."
        raise InputError(path, "file", f"unknown suffix {path.suffix!r}", fix)
    if metres.ndim != 2 or 0 in metres.shape:
        raise InputError(path, "depth", f"shape {metres.shape}", "Save one number a pixel, (H, W).")
    if not np.issubdtype(metres.dtype, np.floating):
        raise InputError(path, "depth", f"dtype {metres.dtype}", "Save float metres.")
    scale = _scale(path, metres.shape, image_size)
    metres = np.where(np.isfinite(metres), metres, 0).astype(np.float32)
    if (metres < 0).any():
        found = f"negative values (lowest {metres.min():g})"
        raise InputError(path, "depth", found, "Depth is metres in front of the camera; 0 = no reading.")
    if not metres.any():
        fix = "Depth is metres, above zero; delete the file if there is none."
        raise InputError(path, "depth", "not one reading (all are 0, inf or NaN)", fix)
    nearest = metres[metres > 0].min()
    if nearest > FARTHEST_NEAREST_M:
        found = f"the nearest reading is {nearest:g} m"
        raise InputError(path, "depth", found, "Depth is metres: divide millimetres by 1000.")
    return DepthMap(metres, scale, None if focal is None else focal / float(scale[0]))


def valid_mask(metres: np.ndarray, erode_px: float = 3.0, log_jump: float = EDGE_LOG_JUMP) -> np.ndarray:
    """Pixels (h, w) bool with a reading that lies more than ``erode_px`` native px from any depth jump.

    A jump is a 3 x 3 window whose readings span more than ``log_jump`` in log depth. A missing reading
    is no jump. Depth Pro works at 1536 x 1536: on a map that was enlarged from it, scale ``erode_px``.

    Args:
        metres: (h, w) m; 0 = no reading.
    """
    reading = metres > 0
    log_depth = np.log(np.where(reading, metres, 1)).astype(np.float32)
    window = np.ones((3, 3), np.uint8)
    # What has no reading must win neither the maximum nor the minimum.
    highest = cv2.dilate(np.where(reading, log_depth, -np.float32(1e9)), window)
    lowest = cv2.erode(np.where(reading, log_depth, np.float32(1e9)), window)
    jump = reading & (highest - lowest > log_jump)
    if not jump.any():
        return reading
    distance = cv2.distanceTransform((~jump).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return reading & (distance > erode_px)


def depth_edges(metres: np.ndarray, log_jump: float = EDGE_LOG_JUMP) -> DepthEdges:
    """Occlusion edges of a depth map: the contour of a person for whom no mask is given.

    An edge point is a ridge of the gradient of *inverse* depth, in which networks blend the two sides,
    placed between pixels by a parabola through three samples along the gradient. The step of log depth
    across it, 2 px on either side, must exceed ``log_jump`` beyond what the slope of the nearer surface
    explains. Where the readings around are missing there is no edge.

    Args:
        metres: (h, w) m; 0 = no reading.
        log_jump: Least log of farther over nearer depth.
    """
    reading = (metres > 0).astype(np.float32)
    log_depth = np.log(np.where(metres > 0, metres, 1)).astype(np.float32)
    inverse = np.exp(-log_depth)
    slope = np.hypot(*_gradient(inverse, 3, 1 / 8))
    # The wider window averages a pixelated edge's staircase.
    gx, gy = (-g for g in _gradient(inverse, 5, 1 / 128))
    # Where a hole enters a window the gradient means nothing. 5 x 5: the neighbours' gradients count too.
    whole = cv2.erode(reading, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    steep = slope > inverse * log_jump / (2 * _EDGE_REACH)
    row, column = np.nonzero((whole > 0) & steep & (np.hypot(gx, gy) > 0))
    normals = np.stack([gx[row, column], gy[row, column]], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    points = np.stack([column, row], -1).astype(np.float64)

    def at(image: np.ndarray, steps: float) -> np.ndarray:
        x, y = (points + steps * normals).T
        return map_coordinates(image, [y, x], order=1, mode="nearest")

    here, nearer, farther = slope[row, column], at(slope, -1), at(slope, 1)
    # A step between two pixels has equal slopes at both; the nearer pixel stands for it.
    ridge = (here > nearer * (1 + 1e-4)) & (here >= farther * (1 - 1e-4))
    jump = at(log_depth, _EDGE_REACH) - at(log_depth, -_EDGE_REACH)
    # A surface that recedes this fast in front of the edge would explain the step without an edge.
    recedes = (at(log_depth, -_EDGE_REACH) - at(log_depth, -2 * _EDGE_REACH)) / _EDGE_REACH
    recedes = np.where(at(reading, -2 * _EDGE_REACH) > 0.999, np.maximum(recedes, 0), 0)
    read = (at(reading, _EDGE_REACH) > 0.999) & (at(reading, -_EDGE_REACH) > 0.999)
    keep = ridge & read & (jump - recedes * 2 * _EDGE_REACH > log_jump)
    here, nearer, farther = here[keep], nearer[keep], farther[keep]
    shift = 0.5 * (nearer - farther) / (nearer - 2 * here + farther)
    moved = points[keep] + np.clip(shift, -0.5, 0.5)[:, None] * normals[keep]
    return DepthEdges(moved, normals[keep].astype(np.float64), jump[keep].astype(np.float64))


def _gradient(image: np.ndarray, size: int, scale: float) -> list[np.ndarray]:
    """Derivatives per px in x and y by Sobel's windows of ``size``; ``scale`` makes them so."""
    return [cv2.Sobel(image, cv2.CV_32F, *axes, ksize=size, scale=scale) for axes in ((1, 0), (0, 1))]


def _read_npz(path: Path) -> tuple[np.ndarray, float | None]:
    with open_npz(path) as archive:
        metres = npz_array(path, archive, "depth")
        if "focallength_px" not in archive.files:
            return metres, None
        focal = npz_array(path, archive, "focallength_px")
    fix = "It is one number, the focal length in px; leave it out if unknown."
    if focal.size != 1 or not np.issubdtype(focal.dtype, np.number):
        raise InputError(path, "focallength_px", f"shape {focal.shape}, dtype {focal.dtype}", fix)
    return metres, positive_number(path, "focallength_px", float(focal.reshape(())), fix)


def _read_png(path: Path) -> np.ndarray:
    pixels = decode_image(path, read_bytes(path), cv2.IMREAD_UNCHANGED)
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        found = f"{8 * pixels.itemsize} bits, {channels} channel(s)"
        fix = "Save millimetres as a 16-bit PNG of one channel; a picture of a depth map is not depth."
        raise InputError(path, "pixels", found, fix)
    return np.where(pixels == _PNG_FULL, 0, pixels).astype(np.float32) / 1000


def _read_exr(path: Path) -> np.ndarray:
    """OpenCV's wheels come without EXR since version 5, so that this takes the format's own library."""
    try:
        import OpenEXR
    except ImportError as error:
        fix = "Run pip install OpenEXR, or save the depth as npz."
        raise InputError(path, "file", "EXR needs the OpenEXR package", fix) from error
    read_bytes(path)
    try:
        with OpenEXR.File(str(path), separate_channels=True) as image:
            channels = {name: np.array(channel.pixels) for name, channel in image.channels().items()}
    except (RuntimeError, ValueError) as error:
        raise InputError(path, "file", f"not a readable EXR ({error})", "Write or copy it again.") from error
    for name in EXR_CHANNELS:
        if name in channels:
            return channels[name].astype(np.float32)
    found = f"channels {', '.join(channels)}"
    raise InputError(path, "channels", found, f"Depth is a channel named {', '.join(EXR_CHANNELS)}.")


def _scale(path: Path, shape: tuple[int, ...], image_size: tuple[int, int]) -> np.ndarray:
    (height, width), (image_width, image_height) = shape, image_size
    scale = np.array([width / image_width, height / image_height])
    if abs(width - scale[1] * image_width) > ASPECT_SLACK * max(scale[1], 1):
        turned = abs(width * image_width / (height * image_height) - 1) < 0.01
        fix = "Estimate depth on the whole, upright image."
        if turned:
            fix = "It lies on its side: estimate depth on the image turned by its EXIF orientation."
        found = f"{width} x {height}, which is not the aspect of the image, {image_width} x {image_height}"
        raise InputError(path, "depth", found, fix)
    return scale
