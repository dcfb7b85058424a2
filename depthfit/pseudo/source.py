"""What every source does, and which kind a path is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from depthfit.errors import InputError
from depthfit.evidence import cameras
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.depth import DepthMap, read_depth
from depthfit.evidence.exif import ExifError, read_exif_focal
from depthfit.evidence.files import decode_image
from depthfit.evidence.scene import ImageEvidence
from depthfit.pseudo.records import Item, ItemRef, Subject, Unit, UnitPlan

_log = logging.getLogger(__name__)
RAW_FRAME = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""Labels of training sets count pixels of the stored image: their loaders do not turn it upright."""


class Source(Protocol):
    """A dataset. Small and picklable: workers get a copy."""

    @property
    def kind(self) -> str:
        """``tars``, ``coco``, ``npz`` or ``scene``."""

    def regressor(self) -> str | None:
        """Name of the regressor that depthfit ran to make the source's labels, or ``None``."""

    def units(self) -> list[Unit]:
        """The parts that become shards, in order; cheap.

        Raises:
            InputError: The source as a whole cannot be used.
        """

    def plan(self, unit: Unit) -> UnitPlan:
        """Count what a unit holds; what is damaged is in the plan, not raised."""

    def read(self, plan: UnitPlan, chunk: int) -> tuple[list[Item], int]:
        """The items of a chunk, and the bytes that were read. An item that cannot be used says why."""

    def pixels(self, plan: UnitPlan, key: str) -> np.ndarray:
        """An image (H, W, 3) uint8 RGB, in the frame of its labels.

        Raises:
            InputError: It cannot be read.
        """


def image_evidence(
    path: Path,
    data: bytes,
    size: tuple[int, int],
    subjects: Sequence[Subject],
    labels: np.ndarray | None,
    depth: DepthMap | None,
    camera: CameraPrior | None = None,
) -> ImageEvidence:
    """An image's evidence for its people.

    Args:
        path: What to name in errors.
        data: The encoded image, for its EXIF.
        size: (width, height) px.
        subjects: The image's people.
        labels: (H, W) uint8 mask, k = k-th person, or ``None``.
        depth: Or ``None``.
        camera: Where the source knows it; else EXIF, else the depth map's focal, else a prior.
    """
    notes: list[str] = []
    if camera is None:
        try:
            exif = read_exif_focal(data)
            camera, note = cameras.exif_camera(exif, size) if exif is not None else (None, None)
            notes += [note] if note else []
        except ExifError as error:
            notes.append(f"its EXIF data are malformed ({error}) and were not used")
    if camera is None and depth is not None and depth.focal_px is not None:
        camera = cameras.depth_camera(depth.focal_px, size)
    people = tuple(s.keypoints for s in subjects if s.keypoints is not None)
    camera = camera or cameras.prior_camera(size)
    none = np.zeros(0, np.int64)
    return ImageEvidence(path.stem, path, size, people, depth, labels, camera, none, None, tuple(notes))


def rgb(path: Path, data: bytes) -> np.ndarray:
    """Pixels (H, W, 3) RGB of a stored image, not turned upright.

    Raises:
        InputError: The image is damaged or cut short.
    """
    return np.asarray(cv2.cvtColor(decode(path, data), cv2.COLOR_BGR2RGB))


def decode(path: Path, data: bytes) -> np.ndarray:
    """Pixels (H, W, 3) BGR of a stored image, not turned upright.

    Raises:
        InputError: The image is damaged or cut short.
    """
    return decode_image(path, data, RAW_FRAME)


def depth_file(folder: str | None, key: str, size: tuple[int, int]) -> DepthMap | None:
    """``FOLDER/KEY.npz`` where there is one.

    Raises:
        InputError: The file cannot be used.
    """
    path = None if folder is None else Path(folder) / f"{key}.npz"
    return read_depth(path, size) if path is not None and path.is_file() else None


def failed_item(key: str, people: int, failure: str) -> Item:
    """An item of which nothing can be used, with as many people as it has."""
    subjects = [Subject(k + 1, None, None, failure, finite=False) for k in range(people)]
    return Item(key, subjects, None, failure, readable=False)


def guarded(ref: ItemRef, read: Callable[[], Item]) -> Item:
    """What ``read`` gives. Whatever an image's contents make it raise, the others must be read; it is logged
    and ends as a reason. What fails of the storage or for want of memory is not the image's fault."""
    try:
        return read()
    except (OSError, MemoryError):
        raise
    except Exception as error:
        _log.warning("%s: not read: %s", ref.key, error, exc_info=True)
        return failed_item(ref.key, ref.people, f"read_error: {type(error).__name__}: {error}")


def reason(word: str, error: InputError) -> str:
    """An error as a reason: the word that counts, then the particulars."""
    return f"{word}: {error.field}: {error.found}"


def check_folder(setting: str, folder: str | None) -> None:
    """Refuse a folder that is not there.

    Raises:
        InputError: It is not.
    """
    if folder is not None and not Path(folder).is_dir():
        raise InputError("command line", setting, f"no folder {folder!r}", "Check the path.")
