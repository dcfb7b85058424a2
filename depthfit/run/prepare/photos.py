"""Photographs into a scene: copied as they are, once they are known to decode."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import cv2

from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.files import decode_image, read_bytes, visible_folders
from depthfit.evidence.scene import IMAGE_SUFFIXES

_log = logging.getLogger(__name__)


def list_photos(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Photographs of a folder by name (stem), sorted, and the other files with the reason why not.

    Raises:
        InputError: No such folder, no photograph, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(folder, "images", "no such folder", "Name a folder of jpg or png files.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    photos = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    folders = visible_folders(folder)
    if not photos:
        found = "no jpg or png file" + (f", but {folders[0]}" if folders else "")
        fix = "Convert the photographs to one of these; name the folder that they lie in."
        raise InputError(folder, "images", found, fix)
    for name in folders:
        _log.warning("%s: %s: photographs in folders of it are not read", folder, name)
    for stem, number in Counter(path.stem for path in photos).items():
        if number > 1:
            found = f"{number} files are named {stem}"
            raise InputError(folder, stem, found, "Rename one: the name tells what belongs to the image.")
    others = {
        path.name: f"{path}: file: not a jpg or png. Convert it, if it is a photograph."
        for path in files
        if path not in photos and path.name != "cameras.json"
    }
    return {path.stem: path for path in photos}, others


def copy_photo(source: Path, target: Path, overwrite: bool) -> None:
    """Copy a photograph that decodes to ``target``. Its bytes stay the same, its EXIF data among them.

    Every stage reads the copy in the one way that :func:`depthfit.evidence.files.read_rgb` does: turned
    upright by EXIF, 8 bits, three colours. So pixels, keypoints, depth and masks share one frame.

    Raises:
        InputError: It does not decode, or another photograph of that name is in the scene.
    """
    data = read_bytes(source)
    if target.is_file() and not target.samefile(source):
        if target.read_bytes() == data:
            return
        if not overwrite:
            fix = "Give another SCENE, or overwrite=true."
            raise InputError(source, "file", f"differs from {target}, made by an earlier run", fix)
    decode_image(source, data, cv2.IMREAD_COLOR)
    if not (target.is_file() and target.samefile(source)):
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)
