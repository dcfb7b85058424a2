"""Inputs of fits, made ahead in processes without a GPU and handed over in files.

A fit needs a few thousand pixels of the megabytes that an image's maps have. So the maps lie in one file that
the fitting process maps into its memory and reads where it looks; the rest is pickled, a file for each fit.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from depthfit.bench.fitting import ReadyImage
from depthfit.bench.variants import Variant
from depthfit.fit.adapter import EvidenceMaps, Prediction, image_input
from depthfit.fit.config import FitConfig
from depthfit.fit.inputs import ImageInput

LARGE_BYTES = 1 << 16
"""Tensors from this size on lie in the file of maps, each content once."""
ALIGNMENT = 64
MAPS = "maps.bin"


@dataclass(frozen=True)
class PreparedImage:
    """An image ready to be fitted.

    Attributes:
        name: Of its file.
        people: Without what the input holds.
        input: Of one fit.
    """

    name: str
    people: list[Prediction]
    input: ImageInput


def prepare(images: Sequence[ReadyImage], fits: Mapping[str, Variant], base: FitConfig, folder: Path) -> None:
    """Write the inputs of ``fits``, by name, with settings that start from ``base``, into ``folder``."""
    settings = {key: variant.settings(base) for key, variant in fits.items()}
    pickled: dict[str, list[bytes]] = {key: [] for key in fits}
    folder.mkdir(parents=True)
    with (folder / MAPS).open("wb") as file:
        maps = _Maps(file)
        for image in images:
            people = [replace(p, token_probabilities=None, detection=None) for p in image.people]
            # A variant changes nothing of the evidence but the camera.
            shared = EvidenceMaps.of(image.evidence, image.people)
            for key, variant in fits.items():
                evidence = variant.evidence(image.evidence, image.true_focal)
                made = image_input(evidence, image.people, settings[key], shared)
                pickled[key].append(maps.pickled(PreparedImage(evidence.path.name, people, made)))
    for key, content in pickled.items():
        (folder / f"{key}.pkl").write_bytes(pickle.dumps(content, pickle.HIGHEST_PROTOCOL))


def prepared(folder: Path, key: str) -> list[PreparedImage]:
    """What :func:`prepare` wrote for one fit; maps are read when they are looked at."""
    path = folder / MAPS
    # Copied on write: tensors cannot be read-only.
    maps = np.memmap(path, np.uint8, "c") if path.stat().st_size else np.zeros(0, np.uint8)
    content = pickle.loads((folder / f"{key}.pkl").read_bytes())
    return [_Unpickler(BytesIO(one), maps).load() for one in content]


class _Maps:
    """Large tensors, one after another in a file, each content once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, int] = {}

    def pickled(self, item: Any) -> bytes:
        """``item`` with its large tensors in the file."""
        buffer = BytesIO()
        _Pickler(buffer, self).dump(item)
        return buffer.getvalue()

    def place(self, array: np.ndarray) -> int:
        """Where the bytes of a contiguous array lie."""
        content = array.data.cast("B")
        digest = hashlib.sha1(content, usedforsecurity=False).digest()
        if digest not in self._places:
            self._file.write(bytes(-self._file.tell() % ALIGNMENT))
            self._places[digest] = self._file.tell()
            self._file.write(content)
        return self._places[digest]


class _Pickler(pickle.Pickler):
    """Tensors as arrays: torch's own pickles are slow and large."""

    def __init__(self, file: BinaryIO, maps: _Maps) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._maps = maps

    def persistent_id(self, item: Any) -> Any:
        if not isinstance(item, Tensor):
            return None
        array = np.ascontiguousarray(item.numpy()).reshape(item.shape)
        if array.nbytes < LARGE_BYTES:
            return array.copy()
        return self._maps.place(array), array.shape, array.dtype.str


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, maps: np.ndarray) -> None:
        super().__init__(file)
        self._maps = maps

    def persistent_load(self, found: Any) -> Tensor:
        if isinstance(found, np.ndarray):
            return torch.from_numpy(found)
        start, shape, dtype = found
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return torch.from_numpy(self._maps[start : start + size].view(dtype).reshape(shape))
