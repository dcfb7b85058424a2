"""What passes between the stages: units, items, chunks, people, and how each ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.scene import ImageEvidence

REFINED, ORIGINAL, DROPPED, FAILED = "refined", "original", "dropped", "failed"
OUTCOMES = (REFINED, ORIGINAL, DROPPED, FAILED)
"""How a person ends; each in exactly one."""


@dataclass(frozen=True)
class Unit:
    """A part of the source that becomes one shard.

    Attributes:
        name: Of the shard, safe as a file name.
        path: The source's file.
        first, last: Range of the source's images, where the file holds more than one unit.
        bytes: Of the file when it was planned.
    """

    name: str
    path: str
    first: int = 0
    last: int = -1
    bytes: int = 0


@dataclass(frozen=True)
class ItemRef:
    """One image of a unit.

    Attributes:
        key: Its name in the source.
        people: People that the source has there; 1 where its label cannot be read.
        where: How the source finds it again; JSON.
        error: Why it cannot be read at all, or empty.
    """

    key: str
    people: int
    where: Any
    error: str = ""


@dataclass(frozen=True)
class UnitPlan:
    """What a unit holds. Each image is in exactly one chunk.

    Attributes:
        unit: The unit.
        items: Its images in order.
        chunks: (first, last) ranges of items.
        faults: Damages of the file that belong to no image.
    """

    unit: Unit
    items: tuple[ItemRef, ...]
    chunks: tuple[tuple[int, int], ...]
    faults: tuple[str, ...] = ()

    @property
    def people(self) -> int:
        return sum(item.people for item in self.items)


@dataclass(frozen=True)
class ChunkRef:
    """A chunk: number ``index`` of its unit."""

    unit: str
    index: int

    @property
    def name(self) -> str:
        return f"{self.unit}/{self.index:05d}"


@dataclass(frozen=True)
class Label:
    """What the source says of a person's body. Camera frame, radians, metres.

    Attributes:
        pose: (72,) axis-angle, the root first.
        betas: (10,).
        smpl_transl: (3,) SMPL's translation, or ``None`` where the source has none.
        focal: px of the camera that belongs to it, or ``None``.
    """

    pose: np.ndarray
    betas: np.ndarray
    smpl_transl: np.ndarray | None = None
    focal: float | None = None


@dataclass(frozen=True)
class Subject:
    """One input person.

    Attributes:
        person: 1-based number in the image, as in its mask.
        keypoints: Detected points; ``None`` = none.
        label: ``None`` = the source has no body for this person.
        failure: Why the person cannot be used, or empty.
        finite: Whether the source's label may be written again.
    """

    person: int
    keypoints: KeypointPerson | None
    label: Label | None
    failure: str = ""
    finite: bool = True


@dataclass
class Item:
    """An image on its way.

    Attributes:
        key: Its name in the source.
        subjects: Its people.
        evidence: Of the image; ``None`` if it cannot be used, with ``failure`` saying why.
        failure: Of the image as a whole.
        readable: Whether the image (not only its people) may be written again.
    """

    key: str
    subjects: list[Subject]
    evidence: ImageEvidence | None
    failure: str = ""
    readable: bool = True


@dataclass
class Chunk:
    """Items with, later, rows; ``times`` holds (start, end, process) of each stage in s since the epoch.

    Attributes:
        rows: One dict a person, of :mod:`depthfit.pseudo.outcome`.
        bytes_in: Read from the source; bytes_out: of the part.
        memory: Resident bytes of the process that fitted, at its end.
        storage_error: Why the source could not be read or the part not written, or empty.
        halvings: How often a batch was halved for want of memory.
    """

    ref: ChunkRef
    items: list[Item] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    times: dict[str, tuple[float, float, str]] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_moved: int = 0
    memory: int = 0
    halvings: int = 0
    storage_error: str = ""

    def receipt(self) -> Chunk:
        """The chunk without its contents."""
        return Chunk(
            self.ref,
            times=self.times,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            bytes_moved=self.bytes_moved,
            memory=self.memory,
            halvings=self.halvings,
            storage_error=self.storage_error,
            rows=[{name: row[name] for name in ("outcome", "reason")} for row in self.rows],
        )


def cut_units(path: str, images: int, size: int) -> list[Unit]:
    """Units of ``size`` images each of a file that holds ``images``."""
    return [
        Unit(f"{k:06d}", path, first, min(first + size, images))
        for k, first in enumerate(range(0, images, size))
    ]


def cut_chunks(items: list[ItemRef], size: int) -> tuple[tuple[int, int], ...]:
    """Ranges of items with about ``size`` people each; an image is never cut."""
    ranges, first, people = [], 0, 0
    for i, item in enumerate(items):
        people += item.people
        if people >= size:
            ranges.append((first, i + 1))
            first, people = i + 1, 0
    if first < len(items):
        ranges.append((first, len(items)))
    return tuple(ranges)
