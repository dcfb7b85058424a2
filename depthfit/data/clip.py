"""A motion clip: a skeleton and its local rotations over time, whatever file it came from."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthfit.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """F frames of a skeleton of J joints; a parent always precedes its children.

    With all local rotations equal to the identity the skeleton is in its rest pose, in which every
    joint's frame is parallel to the world's.

    Attributes:
        names: J joint names; the ends of chains are joints too, called ``<joint>_end``.
        parents: J indices, -1 for the root.
        offsets: (J, 3) rest position relative to the parent, in the file's unit (m for AMASS and ASF).
        rotations: (F, J, 3, 3) rotations relative to the parent.
        translation: (F, 3) position of the root, in the same unit.
        fps: Frames per second.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Array
    rotations: Array
    translation: Array
    fps: float

    @property
    def frames(self) -> int:
        return len(self.translation)

    @cached_property
    def rest_positions(self) -> Array:
        """(J, 3) joints of the rest pose, the root at its offset."""
        positions = self.offsets.copy()
        for j, parent in enumerate(self.parents):
            if parent >= 0:
                positions[j] += positions[parent]
        return positions

    @cached_property
    def global_rotations(self) -> Array:
        """(F, J, 3, 3) rotation of every joint from the rest pose."""
        out = self.rotations.copy()
        for j, parent in enumerate(self.parents):
            if parent >= 0:
                out[:, j] = out[:, parent] @ out[:, j]
        return out

    @cached_property
    def positions(self) -> Array:
        """(F, J, 3) joints by forward kinematics."""
        out = np.empty((self.frames, len(self.names), 3))
        for j, parent in enumerate(self.parents):
            if parent < 0:
                out[:, j] = self.translation
            else:
                out[:, j] = out[:, parent] + self.global_rotations[:, parent] @ self.offsets[j]
        return out


def read_text(path: Path) -> str:
    """Text of a file that may be gzipped (by its name)."""
    if not path.is_file():
        raise InputError(path, "file", "not found", "Give the path of a motion file")
    if path.suffix == ".gz":
        try:
            with gzip.open(path, "rt", encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(path, "file", f"cannot be unpacked ({error})", "The file is damaged") from error
    return path.read_text(encoding="utf-8", errors="replace")
