"""A scene folder: which files belong to which image, and one image's evidence at a time."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from depthfit.errors import InputError
from depthfit.evidence import cameras, keypoints
from depthfit.evidence.depth import DEPTH_SUFFIXES, DepthMap, read_depth
from depthfit.evidence.exif import ExifError, read_exif_focal
from depthfit.evidence.files import decode_image, read_bytes, read_rgb, suggest, visible_folders
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.mask import read_mask
from depthfit.evidence.predictions import Predictions, read_predictions
from depthfit.evidence.token_probs import TokenProbs

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
OTHER_IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".tif", ".tiff", ".webp")
"""Of photographs that are not read, and are named."""
KEYPOINT_ENDING = "_keypoints"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageEvidence:
    """All that the scene says of one image. Pixels refer to the upright image.

    Attributes:
        name: The image file's stem.
        path: The image file.
        size: (width, height) px.
        people: Detected people; empty = none, or no keypoints for this image.
        depth: ``None`` without a depth file.
        labels: (H, W) uint8 mask, k = k-th person; ``None`` without a mask file.
        camera: What is known of the focal length.
        rows: (N,) rows of the scene's predictions that belong to this image.
        predictions: Those rows; ``None`` if the scene has no predictions at all.
        notes: What was set aside, one sentence each.
    """

    name: str
    path: Path
    size: tuple[int, int]
    people: tuple[KeypointPerson, ...]
    depth: DepthMap | None
    labels: np.ndarray | None
    camera: cameras.CameraPrior
    rows: np.ndarray
    predictions: Predictions | None
    notes: tuple[str, ...]

    def pixels(self) -> np.ndarray:
        """The photograph, (H, W, 3) uint8 RGB; read again at each call."""
        return read_rgb(self.path)


@dataclass(frozen=True)
class Scene:
    """A scene folder whose files are known and whose images are read one by one.

    Attributes:
        root: The folder.
        images: File of each image by name (stem), sorted.
        keypoint_format: One of ``joints.KEYPOINT_FORMATS``; ``None`` if the scene has no keypoints.
        predictions: All people of predictions.npz, or ``None``.
        strangers: Files and entries that belong to no image; a mistyped name is among them.
    """

    root: Path
    images: dict[str, Path]
    keypoint_format: str | None
    predictions: Predictions | None
    strangers: tuple[str, ...]
    _files: dict[str, dict[str, Path]] = field(repr=False)
    _coco: dict[str, list[KeypointPerson]] = field(repr=False)
    _cameras: dict[str, Any] = field(repr=False)
    _rows: dict[str, list[int]] = field(repr=False)
    _bad_rows: dict[int, InputError] = field(repr=False)
    _bad_images: dict[str, InputError] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.images)

    @property
    def in_any_order(self) -> bool:
        """Whether images may be read in any order, and by several threads at once. Where the predictions are
        compressed, that would unpack the file again and again.
        """
        probs = None if self.predictions is None else self.predictions.token_probs
        return not isinstance(probs, TokenProbs) or probs.in_any_order

    def rows_of(self, name: str) -> np.ndarray:
        """Rows (N,) int of ``predictions`` that belong to an image; none without predictions."""
        return np.array(self._rows.get(name, []), dtype=np.int64)

    def fingerprint(self, name: str) -> str:
        """What tells whether an image's evidence is still the same: its files by size and time of change, its
        entries and rows in files of several images by their contents. No image is opened.

        Args:
            name: As in ``names``.

        Raises:
            InputError: A file went away since the scene was read.
        """
        digest = hashlib.sha256()
        for path in (self.images[name], *(by[name] for by in self._files.values() if name in by)):
            try:
                status = path.stat()
            except OSError as error:
                raise InputError(
                    path, "file", f"cannot be read ({error.strerror})", "Check the path."
                ) from error
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        for person in self._coco.get(name, []):
            digest.update(person.xy.tobytes() + person.confidence.tobytes())
        digest.update(json.dumps(self._cameras.get(name), sort_keys=True).encode())
        if self.predictions is not None:
            p, rows = self.predictions, self.rows_of(name)
            digest.update((p.regressor or "").encode())
            # Token probabilities are left out: they are read row by row, and come with the rest.
            parts = (p.person, p.box_center, p.box_size, p.pred_cam, p.root, p.pose, p.betas)
            for part in parts:
                digest.update(np.ascontiguousarray(part[rows]).tobytes())
        return digest.hexdigest()

    def read(self, name: str) -> ImageEvidence:
        """One image's evidence.

        Args:
            name: The image's stem or file name, as in ``names`` or the predictions' ``imgname``.

        Raises:
            InputError: something that the scene says of this image cannot be used.
        """
        stem = _match_name(name, self.images)
        if stem is None:
            fix = suggest(name, self.images, "Put the image there, or take the name out.")
            raise InputError(self.root / "images", name, "no image of that name", fix)
        if stem in self._bad_images:
            raise self._bad_images[stem]
        path = self.images[stem]
        data = read_bytes(path)
        height, width = decode_image(path, data, cv2.IMREAD_COLOR).shape[:2]
        size, notes = (width, height), []
        files = {part: by_name[stem] for part, by_name in self._files.items() if stem in by_name}
        depth = read_depth(files["depth"], size) if "depth" in files else None
        labels = read_mask(files["masks"], size) if "masks" in files else None
        camera, note = self._camera(stem, path, data, size, depth)
        notes += [note] if note else []
        people = self._coco.get(stem, [])
        if "keypoints" in files:
            assert self.keypoint_format is not None
            people = keypoints.read_openpose(files["keypoints"], self.keypoint_format)
        keypoints.check_reach(files.get("keypoints", self.root / "keypoints.json"), people, size)
        rows, predictions = self.rows_of(stem), None
        if self.predictions is not None:
            for row in rows.tolist():
                if row in self._bad_rows:
                    raise self._bad_rows[row]
            predictions = self.predictions.rows(rows)
            notes += _label_notes(labels, predictions.person)
        for note in notes:
            _log.warning("%s: %s", path, note)
        return ImageEvidence(
            stem, path, size, tuple(people), depth, labels, camera, rows, predictions, tuple(notes)
        )

    def _camera(
        self, name: str, path: Path, data: bytes, size: tuple[int, int], depth: DepthMap | None
    ) -> tuple[cameras.CameraPrior, str | None]:
        """The first of cameras.json, EXIF, depth file and prior that knows a focal length."""
        if name in self._cameras:
            source = self.root / "cameras.json"
            return cameras.given_camera(source, name, self._cameras[name], size), None
        camera, note = None, None
        try:
            exif = read_exif_focal(data)
            if exif is not None:
                camera, note = cameras.exif_camera(exif, size)
        except ExifError as error:
            note = f"its EXIF data are malformed ({error}) and were not used"
        if camera is None and depth is not None and depth.focal_px is not None:
            camera = cameras.depth_camera(depth.focal_px, size)
        return camera or cameras.prior_camera(size), note


def read_scene(root: str | Path, keypoint_format: str | None = None, with_predictions: bool = True) -> Scene:
    """Find a scene's files. Images and what belongs to them are opened by ``Scene.read`` alone.

    Files and entries that match no image are logged and kept in ``Scene.strangers``.

    Args:
        root: The scene folder.
        keypoint_format: Of the keypoint files, one of ``joints.KEYPOINT_FORMATS``. It must be named for
            OpenPose files, as two formats have 25 points; COCO files are ``coco17`` unless named.
        with_predictions: False leaves predictions.npz unread, where it is about to be made.

    Raises:
        InputError: the scene as a whole cannot be used.
    """
    root = Path(root)
    images = _list_images(root / "images")
    strangers: list[str] = []
    bad: dict[str, InputError] = {}
    files = {
        "keypoints": _index(root, "keypoints", (".json",), images, strangers, bad, KEYPOINT_ENDING),
        "depth": _index(root, "depth", DEPTH_SUFFIXES, images, strangers, bad),
        "masks": _index(root, "masks", (".png",), images, strangers, bad),
    }
    keypoint_format, coco = _read_keypoints(root, keypoint_format, images, strangers, bad)
    entries: dict[str, Any] = {}
    if (root / "cameras.json").is_file():
        for key, entry in cameras.read_cameras(root / "cameras.json").items():
            _file_under(root / "cameras.json", key, entry, images, entries, strangers, bad)
    predictions, bad_rows, rows = None, dict[int, InputError](), dict[str, list[int]]()
    if with_predictions and (root / "predictions.npz").is_file():
        predictions, bad_rows = read_predictions(root / "predictions.npz")
        rows = _rows_by_image(root / "predictions.npz", predictions.imgname.tolist(), images, strangers)
    for stranger in strangers:
        _log.warning("%s: %s; not used", stranger, _why_unused(stranger, root / "images", images))
    return Scene(
        root,
        images,
        keypoint_format,
        predictions,
        tuple(strangers),
        files,
        coco,
        entries,
        rows,
        bad_rows,
        bad,
    )


def _list_images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        fix = "A scene is a folder with a folder images/ inside; check the path."
        raise InputError(folder, "images", "no such folder", fix)
    paths = sorted(path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    unread = _unread_images(folder)
    if not paths:
        found = "no jpg or png file" + (f", but {unread[0]}" if unread else "")
        fix = "Put the photographs there, as jpg or png; folders in it are not read."
        raise InputError(folder, "images", found, fix)
    for name in unread:
        _log.warning("%s: %s: neither jpg nor png file; not used", folder, name)
    for stem, number in Counter(path.stem for path in paths).items():
        if number > 1:
            found = f"{number} files are named {stem}"
            raise InputError(folder, stem, found, "Rename one: the name tells what belongs to the image.")
    return {path.stem: path for path in paths}


def _unread_images(folder: Path) -> list[str]:
    """Names of what may hold photographs but is not read: folders, and files of other formats."""
    others = (path.name for path in _visible(folder) if path.suffix.lower() in OTHER_IMAGE_SUFFIXES)
    return visible_folders(folder) + sorted(others)


def _why_unused(stranger: str, folder: Path, images: dict[str, Path]) -> str:
    """Why a file or an entry belongs to no image."""
    part, _, name = stranger.partition("/")
    stem = Path(name).stem
    if part == "keypoints" and name.endswith(".json") and stem in images:
        return f"OpenPose's files are named {stem}{KEYPOINT_ENDING}.json"
    return f"no image of that name in {folder}"


def _index(
    root: Path,
    part: str,
    suffixes: tuple[str, ...],
    images: dict[str, Path],
    strangers: list[str],
    bad: dict[str, InputError],
    ending: str = "",
) -> dict[str, Path]:
    """Files of one folder by the image they belong to; the rest goes to ``strangers``, rivals to ``bad``."""
    folder, result = root / part, dict[str, Path]()
    for path in sorted(_visible(folder)) if folder.is_dir() else []:
        stem = path.stem.removesuffix(ending)
        if path.suffix not in suffixes or not path.stem.endswith(ending) or stem not in images:
            strangers.append(f"{part}/{path.name}")
            continue
        if stem in result:
            found = f"both {result[stem].name} and {path.name}"
            bad.setdefault(stem, InputError(folder, stem, found, "Keep one file for each image."))
            continue
        result[stem] = path
    return result


def _read_keypoints(
    root: Path,
    keypoint_format: str | None,
    images: dict[str, Path],
    strangers: list[str],
    bad: dict[str, InputError],
) -> tuple[str | None, dict[str, list[KeypointPerson]]]:
    """Settle the format, and read keypoints.json if that is what the scene has."""
    if keypoint_format is not None:
        keypoints.format_points(keypoint_format)
    one, many = root / "keypoints.json", root / "keypoints"
    if one.is_file() and many.is_dir():
        found = "both keypoints.json and a folder keypoints/"
        raise InputError(root, "keypoints", found, "Keep the one that should be used.")
    if many.is_dir() and keypoint_format is None:
        fix = "Set keypoints.format to coco17, body25 or body25b; the files do not tell."
        raise InputError(many, "keypoints.format", "not named", fix)
    if not one.is_file():
        return keypoint_format if many.is_dir() else None, {}
    keypoint_format = keypoint_format or "coco17"
    by_number = _by_number(images)

    def match_image(image: int | str) -> str | None:
        return by_number.get(image) if isinstance(image, int) else _match_name(image, images)

    people, unknown, unusable = keypoints.read_coco(one, keypoint_format, match_image)
    for name, error in unusable.items():
        bad.setdefault(name, error)
    if unknown and not (people or unusable):
        fix = suggest(unknown[0], images, "An image id is the number that its file name ends with.")
        raise InputError(one, "image_id", f"none of its images is in images/ (first: {unknown[0]})", fix)
    strangers += [f"keypoints.json: {image}" for image in unknown]
    return keypoint_format, people


def _rows_by_image(
    path: Path, imgnames: list[str], images: dict[str, Path], strangers: list[str]
) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    missing: dict[str, None] = {}
    for row, imgname in enumerate(imgnames):
        stem = _match_name(imgname, images)
        if stem is None:
            missing[imgname] = None
        else:
            rows.setdefault(stem, []).append(row)
    if not rows:
        first = next(iter(missing))
        fix = suggest(first, [p.name for p in images.values()], "imgname is a file name in images/.")
        raise InputError(path, "imgname", f"no image is named so (first: {first!r})", fix)
    strangers += [f"predictions.npz: {name}" for name in missing]
    return rows


def _file_under(
    path: Path,
    key: str,
    entry: Any,
    images: dict[str, Path],
    entries: dict[str, Any],
    strangers: list[str],
    bad: dict[str, InputError],
) -> None:
    stem = _match_name(key, images)
    if stem is None:
        strangers.append(f"{path.name}: {key}")
    elif stem in entries:
        bad.setdefault(stem, InputError(path, key, f"a second entry for the image {stem}", "Keep one."))
    else:
        entries[stem] = entry


def _match_name(name: str, images: dict[str, Path]) -> str | None:
    """Stem of the image that a stem, a file name, or a path ending in one means."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    if base in images:
        return base
    stem = Path(base).stem
    return stem if stem in images and images[stem].name == base else None


def _by_number(images: dict[str, Path]) -> dict[int, str]:
    """Images by the number at the end of their stem, as COCO names files; shared numbers are left out."""
    numbers: dict[int, list[str]] = {}
    for stem in images:
        digits = stem[len(stem.rstrip("0123456789")) :]
        if digits:
            numbers.setdefault(int(digits), []).append(stem)
    return {number: stems[0] for number, stems in numbers.items() if len(stems) == 1}


def _label_notes(labels: np.ndarray | None, person: np.ndarray) -> list[str]:
    if labels is None:
        return []
    extra = sorted(set(np.unique(labels).tolist()) - {0, *person.tolist()})
    return [f"its mask has person {k}, whom the predictions do not have" for k in extra]


def _visible(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
