"""Reading files so that whatever is wrong with one is said in one sentence."""

from __future__ import annotations

import difflib
import json
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.exif import jpeg_scan_offset

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that must not be empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, "file", f"cannot be read ({error.strerror})", "Check the path.") from error
    if not data:
        raise InputError(path, "file", "it is empty", "Write or copy it again.")
    return data


def read_json(path: Path) -> Any:
    """Parsed JSON."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(path, "file", f"not valid JSON ({error})", "Write or copy it again.") from error


def open_npz(path: Path) -> np.lib.npyio.NpzFile:
    """An npz archive; its arrays are read by ``npz_array``."""
    fix = "Save named arrays with numpy.savez; a copy may be cut short."
    if not zipfile.is_zipfile(path):
        raise InputError(path, "file", "not a complete npz archive", fix)
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(path, "file", f"cannot be read as npz ({error})", fix) from error
    assert isinstance(archive, np.lib.npyio.NpzFile)  # as numpy reads any zip file
    return archive


def npz_array(path: Path, archive: np.lib.npyio.NpzFile, field: str) -> np.ndarray:
    """One array of an npz archive; pickled objects are refused."""
    if field not in archive.files:
        found = f"missing; the file has {', '.join(archive.files) or 'nothing'}"
        raise InputError(path, field, found, f"Save the array under the name {field!r}.")
    try:
        return np.asarray(archive[field])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        fix = "Save plain numeric (or str) arrays, and check that the file is not cut short."
        raise InputError(path, field, f"cannot be read ({error})", fix) from error


def visible_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, each with a slash, sorted; without hidden ones."""
    return sorted(
        f"{path.name}/" for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def decode_image(path: Path, data: bytes, flags: int) -> np.ndarray:
    """Pixels of an image file by OpenCV; a file that is cut short is an error, never half an image."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    # OpenCV 4 fills the missing rows of a truncated JPEG with grey and says nothing.
    cut = data.startswith(JPEG_START) and data.find(JPEG_END, jpeg_scan_offset(data)) < 0
    if pixels is None or cut:
        found = "the image data end too early" if cut else "cannot be decoded as an image"
        raise InputError(path, "pixels", found, "Write or copy the file again; it may be cut short.")
    return np.asarray(pixels)


def read_rgb(path: Path) -> np.ndarray:
    """Pixels (H, W, 3) uint8 RGB of a photograph, turned upright by its EXIF orientation.

    The upright frame is the one that every other file of a scene refers to: it is what OpenCV (hence
    OpenPose, TokenHMR) and Depth Pro see.
    """
    return cv2.cvtColor(decode_image(path, read_bytes(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height px of an image file, upright as :func:`read_rgb` gives it."""
    height, width = decode_image(path, read_bytes(path), cv2.IMREAD_COLOR).shape[:2]
    return width, height


def suggest(word: str, known: Iterable[str], otherwise: str) -> str:
    """``Did you mean ...?`` if ``word`` is close to one of ``known``, else ``otherwise``."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def positive_number(source: Path, field: str, value: Any, fix: str) -> float:
    """``value`` as a finite number above zero."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise InputError(source, field, f"{value!r} is not a number above zero", fix)
    return float(value)
