"""What label files share whose images lie in a folder beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.files import read_bytes
from depthfit.pseudo.records import Item, ItemRef, Subject, Unit, UnitPlan, cut_chunks, cut_units
from depthfit.pseudo.source import (
    check_folder,
    decode,
    depth_file,
    failed_item,
    guarded,
    image_evidence,
    reason,
    rgb,
)


@dataclass(frozen=True)
class FolderSource(ABC):
    """One label file, and a folder of images that it names.

    Attributes:
        path: The label file.
        images: Folder of its images.
        depth: Folder with STEM.npz, or ``None``.
        chunk, shard_images: People in a chunk and images in a unit.
    """

    path: str
    images: str
    depth: str | None
    chunk: int
    shard_images: int

    @abstractmethod
    def count(self) -> int:
        """Images with people."""

    @abstractmethod
    def listed(self, first: int, last: int) -> list[ItemRef]:
        """The images of a range, in order."""

    @abstractmethod
    def subjects(self, ref: ItemRef) -> list[Subject]:
        """The people of an image."""

    @abstractmethod
    def masks(self, ref: ItemRef, shape: tuple[int, int]) -> np.ndarray | None:
        """Label mask (H, W) uint8 of an image's people, or ``None``.

        Raises:
            InputError: It cannot be made of what the file says.
        """

    @abstractmethod
    def camera(self, ref: ItemRef) -> CameraPrior | None:
        """The image's camera, where the file knows it."""

    def regressor(self) -> str | None:
        return None

    def units(self) -> list[Unit]:
        check_folder("images", self.images)
        check_folder("depth", self.depth)
        return cut_units(self.path, self.count(), self.shard_images)

    def plan(self, unit: Unit) -> UnitPlan:
        items = self.listed(unit.first, unit.last)
        return UnitPlan(unit, tuple(items), cut_chunks(items, self.chunk))

    def read(self, plan: UnitPlan, chunk: int) -> tuple[list[Item], int]:
        first, last = plan.chunks[chunk]
        refs = plan.items[first:last]
        items = [guarded(ref, partial(self._read, ref)) for ref in refs]
        paths = [Path(self.images) / ref.key for ref in refs]
        return items, sum(path.stat().st_size for path in paths if path.is_file())

    def pixels(self, plan: UnitPlan, key: str) -> np.ndarray:
        path = Path(self.images) / key
        return rgb(path, read_bytes(path))

    def _read(self, ref: ItemRef) -> Item:
        path = Path(self.images) / ref.key
        try:
            data = read_bytes(path)
            height, width = decode(path, data).shape[:2]
        except InputError as error:
            return failed_item(ref.key, ref.people, reason("image_unreadable", error))
        subjects = self.subjects(ref)
        try:
            depth = depth_file(self.depth, path.stem, (width, height))
            labels = self.masks(ref, (height, width))
        except InputError as error:
            return Item(ref.key, subjects, None, reason("evidence_unusable", error))
        evidence = image_evidence(path, data, (width, height), subjects, labels, depth, self.camera(ref))
        return Item(ref.key, subjects, evidence)
