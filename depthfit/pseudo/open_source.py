"""Which kind of source a path is."""

from __future__ import annotations

from pathlib import Path

from depthfit.errors import InputError
from depthfit.pseudo.config import PseudoConfig
from depthfit.pseudo.source import Source
from depthfit.pseudo.source_coco import CocoSource
from depthfit.pseudo.source_npz import NpzSource
from depthfit.pseudo.source_scene import SceneSource
from depthfit.pseudo.source_tars import TarSource

KINDS = "a folder of tars, a .tar, a COCO .json, an .npz of labels, or a scene folder"


def open_source(path: str, config: PseudoConfig) -> Source:
    """The source at ``path``.

    Raises:
        InputError: There is none, or a setting that it needs is missing.
    """
    where = Path(path).resolve()
    if where.suffix in (".json", ".npz") and where.is_file():
        if config.images is None:
            raise InputError(path, "images", "not given", "Name the folder of its images: images=FOLDER.")
        kind = CocoSource if where.suffix == ".json" else NpzSource
        return kind(
            str(where), str(Path(config.images).resolve()), _depth(config), config.chunk, config.shard_images
        )
    if where.suffix == ".tar" and where.is_file():
        return TarSource(str(where), _depth(config), config.chunk)
    if (where / "images").is_dir():
        return SceneSource(str(where), config.keypoint_format, config.chunk, config.shard_images)
    if where.is_dir() and any(where.glob("*.tar")):
        return TarSource(str(where), _depth(config), config.chunk)
    found = "not known" if where.exists() else "no such file or folder"
    raise InputError(path, "source", found, f"Give {KINDS}.")


def _depth(config: PseudoConfig) -> str | None:
    return None if config.depth is None else str(Path(config.depth).resolve())
