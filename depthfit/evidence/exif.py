"""The few EXIF tags that tell a focal length, read from the bytes of a JPEG or PNG file.

OpenCV versions before 5 do not hand out EXIF data. This reads the TIFF structure of the EXIF 2.32 standard
(CIPA DC-008) as far as its own tags go: every offset is checked against the data, two directories are
visited and no more, and nothing is executed or allocated by what the file says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_EXIF_POINTER = 0x8769
_TAGS = {
    0x920A: "focal_length_mm",
    0xA002: "pixel_width",
    0xA003: "pixel_height",
    0xA20E: "focal_plane_x_resolution",
    0xA210: "focal_plane_unit",
    0xA405: "focal_length_35mm",
}
_FORMATS = {3: "H", 4: "I", 5: "II", 9: "i", 10: "ii"}
"""TIFF types: SHORT, LONG, RATIONAL and the signed ones, as ``struct`` letters."""
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""FocalPlaneResolutionUnit: inch, centimetre, and the millimetre and micrometre of some makers."""
_PNG_START = b"\x89PNG\r\n\x1a\n"


class ExifError(ValueError):
    """The EXIF data of a file break the standard."""


@dataclass(frozen=True)
class ExifFocal:
    """What EXIF says on the focal length. ``None`` = not said (EXIF writes an unknown value as 0).

    Attributes:
        equivalent_mm: 35 mm equivalent focal length.
        pixels: Focal length in pixels of the image as the camera recorded it.
        recorded_size: (width, height) px of the image as the camera recorded it.
    """

    equivalent_mm: float | None
    pixels: float | None
    recorded_size: tuple[int, int] | None


def read_exif_focal(data: bytes) -> ExifFocal | None:
    """The focal length in the EXIF block of a JPEG or PNG file's bytes; ``None`` without such a block.

    Raises:
        ExifError: the block is there but malformed.
    """
    block = _find_block(data)
    if block is None:
        return None
    tags = _read_tags(block)
    width, height = tags.get("pixel_width", 0.0), tags.get("pixel_height", 0.0)
    resolution = tags.get("focal_plane_x_resolution", 0.0)
    unit = _UNIT_MM.get(int(tags.get("focal_plane_unit", 2)), 0.0)
    pixels = tags.get("focal_length_mm", 0.0) * resolution / unit if unit else 0.0
    return ExifFocal(
        equivalent_mm=tags.get("focal_length_35mm") or None,
        pixels=pixels or None,
        recorded_size=(int(width), int(height)) if width >= 1 and height >= 1 else None,
    )


def jpeg_scan_offset(data: bytes) -> int:
    """Offset of a JPEG's first scan (the pixels' own data), or the length of ``data`` if it has none."""
    for marker, start, _ in _jpeg_segments(data):
        if marker == 0xDA:
            return start
    return len(data)


def _find_block(data: bytes) -> bytes | None:
    """The TIFF structure inside a JPEG's APP1 segment or a PNG's eXIf chunk."""
    if data.startswith(_PNG_START):
        at = len(_PNG_START)
        while at + 8 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, at)
            if kind == b"eXIf":
                return data[at + 8 : at + 8 + length]
            at += 12 + length
        return None
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            return data[start + 6 : end]
    return None


def _jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of the segments in front of a JPEG's pixels, and of the first scan."""
    segments, at = [], 2
    while data.startswith(b"\xff\xd8") and at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((data[at + 1], at + 4, at + 2 + length))
        if data[at + 1] == 0xDA or length < 2:
            break
        at += 2 + length
    return segments


def _read_tags(block: bytes) -> dict[str, float]:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        raise ExifError(f"it starts with {block[:4]!r}, not with a TIFF header")
    main = _read_directory(block, order, _unpack(block, order + "I", 4)[0])
    if _EXIF_POINTER not in main:
        return {}
    found = _read_directory(block, order, int(main[_EXIF_POINTER]))
    return {name: found[tag] for tag, name in _TAGS.items() if tag in found}


def _read_directory(block: bytes, order: str, offset: int) -> dict[int, float]:
    """Single numbers among the entries of one directory; other entries are not looked at."""
    (count,) = _unpack(block, order + "H", offset)
    values: dict[int, float] = {}
    for i in range(count):
        tag, kind, length = _unpack(block, order + "HHI", offset + 2 + 12 * i)
        if (tag not in _TAGS and tag != _EXIF_POINTER) or kind not in _FORMATS or length != 1:
            continue
        letters, at = order + _FORMATS[kind], offset + 2 + 12 * i + 8
        if struct.calcsize(letters) > 4:
            (at,) = _unpack(block, order + "I", at)
        numbers = _unpack(block, letters, at)
        denominator = numbers[1] if len(numbers) == 2 else 1
        values[tag] = numbers[0] / denominator if denominator else 0.0
    return values


def _unpack(block: bytes, letters: str, offset: int) -> tuple[int, ...]:
    if offset + struct.calcsize(letters) > len(block):
        raise ExifError(f"an offset of {offset} points outside its {len(block)} bytes")
    return struct.unpack_from(letters, block, offset)
