"""Training tars of 4D-Humans and TokenHMR: KEY.jpg, KEY.data.pyd, KEY.detection.npz; ours: KEY.depth.npz."""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.depth import DepthMap, read_depth
from depthfit.pseudo import pickles
from depthfit.pseudo.labels import subject
from depthfit.pseudo.records import Item, ItemRef, Subject, Unit, UnitPlan, cut_chunks
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
from depthfit.pseudo.tars import Member, read_member, scan, split_name

IMAGES = ("jpg", "jpeg", "png")
LABEL, MASKS, DEPTH = "data.pyd", "detection.npz", "depth.npz"
MAX_PEOPLE = 255
"""A label mask has a byte a pixel."""


@dataclass(frozen=True)
class TarSource:
    """Tars, each a unit and a shard of the same name.

    Attributes:
        path: A folder of tars, or one tar.
        depth: Folder with KEY.npz, or ``None``.
        chunk: People in a chunk.
    """

    path: str
    depth: str | None
    chunk: int
    kind: str = "tars"

    def regressor(self) -> str | None:
        return None

    def units(self) -> list[Unit]:
        check_folder("depth", self.depth)
        root = Path(self.path)
        files = [root] if root.is_file() else sorted(root.glob("*.tar"))
        if not files:
            raise InputError(root, "source", "no *.tar in it", "Name a folder of training tars.")
        return [Unit(file.stem, str(file)) for file in files]

    def plan(self, unit: Unit) -> UnitPlan:
        members, faults = scan(Path(unit.path))
        groups: list[tuple[str, dict[str, Member]]] = []
        for member in members:
            if not member.regular:
                continue
            key, ending = split_name(member.name)
            # As webdataset: what follows one another under one key is one sample.
            if not groups or groups[-1][0] != key or ending in groups[-1][1]:
                groups.append((key, {}))
            groups[-1][1][ending] = member
        samples = [(key, parts) for key, parts in groups if _is_sample(parts)]
        with open(unit.path, "rb") as file:
            named = zip(_unique([key for key, _ in samples]), samples, strict=True)
            items = [self._item(file, key, parts) for key, (_, parts) in named]
        return UnitPlan(
            unit, tuple(items), cut_chunks(items, self.chunk), tuple(f"tar_damaged: {f}" for f in faults)
        )

    def _item(self, file: BinaryIO, key: str, parts: dict[str, Member]) -> ItemRef:
        where = {ending: [m.name, m.start, m.data, m.size, m.stop] for ending, m in parts.items()}
        image = next((e for e in IMAGES if e in parts), None)
        if LABEL not in parts:
            return ItemRef(key, 1, where, "label_missing: the image has no data.pyd")
        try:
            people = len(read_label(file, parts[LABEL], key))
        except InputError as error:
            return ItemRef(key, 1, where, reason("label_unreadable", error))
        return ItemRef(key, people, where, "" if image else "image_missing: the label has no image")

    def read(self, plan: UnitPlan, chunk: int) -> tuple[list[Item], int]:
        first, last = plan.chunks[chunk]
        items, size = [], 0
        with open(plan.unit.path, "rb") as file:
            for ref in plan.items[first:last]:
                parts = members_of(ref)
                size += sum(m.size for m in parts.values())
                items.append(guarded(ref, partial(self._read, file, ref, parts, Path(plan.unit.path))))
        return items, size

    def pixels(self, plan: UnitPlan, key: str) -> np.ndarray:
        parts = next(members_of(ref) for ref in plan.items if ref.key == key)
        with open(plan.unit.path, "rb") as file:
            data = read_member(file, next(parts[e] for e in IMAGES if e in parts))
        return rgb(Path(plan.unit.path) / key, data)

    def _read(self, file: BinaryIO, ref: ItemRef, parts: dict[str, Member], tar: Path) -> Item:
        if ref.error:
            return failed_item(ref.key, ref.people, ref.error)
        path = tar / ref.key
        try:
            entries = read_label(file, parts[LABEL], ref.key)
            data = read_member(file, next(parts[e] for e in IMAGES if e in parts))
            height, width = decode(path, data).shape[:2]
        except InputError as error:
            return failed_item(ref.key, ref.people, reason("image_unreadable", error))
        subjects = [subject(k + 1, entry, ref.key) for k, entry in enumerate(entries)]
        if len(subjects) > MAX_PEOPLE:
            subjects = [
                Subject(s.person, None, None, f"too_many_people: over {MAX_PEOPLE}") for s in subjects
            ]
        try:
            labels = self._masks(file, parts, entries, (height, width), ref.key)
            depth = self._depth(file, parts, ref.key, (width, height))
        except InputError as error:
            # The image and its labels stay as they are; only this evidence is spoilt.
            return Item(ref.key, subjects, None, reason("evidence_unusable", error))
        return Item(ref.key, subjects, image_evidence(path, data, (width, height), subjects, labels, depth))

    def _masks(
        self, file: BinaryIO, parts: dict[str, Member], entries: list[Any], shape: tuple[int, int], key: str
    ) -> np.ndarray | None:
        if MASKS not in parts:
            return None
        masks = _npz_field(read_member(file, parts[MASKS]), "masks", f"{key}.{MASKS}")
        if masks.ndim != 3 or masks.shape[1:] != shape:
            found = f"shape {masks.shape} for an image of {shape}"
            raise InputError(f"{key}.{MASKS}", "masks", found, "Masks are (N, H, W).")
        if masks.dtype.kind not in "biuf":
            raise InputError(f"{key}.{MASKS}", "masks", f"dtype {masks.dtype}", "Masks are numbers.")
        labels = np.zeros(shape, np.uint8)
        for k, entry in enumerate(entries[:MAX_PEOPLE]):
            index = _mask_index(entry)
            if index is not None and 0 <= index < len(masks):
                labels[(masks[index] > 0) & (labels == 0)] = k + 1
        return labels if labels.any() else None

    def _depth(
        self, file: BinaryIO, parts: dict[str, Member], key: str, size: tuple[int, int]
    ) -> DepthMap | None:
        if DEPTH not in parts:
            name, _ = split_name(next(iter(parts.values())).name)
            return depth_file(self.depth, name, size)
        # read_depth wants a file; a member of a few hundred kB is put into one for it.
        with tempfile.NamedTemporaryFile(suffix=".npz") as held:
            held.write(read_member(file, parts[DEPTH]))
            held.flush()
            return read_depth(Path(held.name), size)


def members_of(ref: ItemRef) -> dict[str, Member]:
    """An item's members by their ending."""
    return {ending: Member(*fields) for ending, fields in ref.where.items()}


def read_label(file: BinaryIO, member: Member, key: str) -> list[Any]:
    """The people of a data.pyd.

    Raises:
        InputError: It is no list of dicts, or no plain data. A list of nobody is one.
    """
    entries = pickles.loads(read_member(file, member), f"{key}.{LABEL}")
    if not isinstance(entries, (list, tuple)) or not all(isinstance(e, dict) for e in entries):
        found = f"a {type(entries).__name__}, not a list of dicts"
        raise InputError(f"{key}.{LABEL}", "pickle", found, "Write one dict a person.")
    return list(entries)


def _unique(names: Sequence[str]) -> list[str]:
    """Keys of samples as text that every file format takes, the later ones of the same key numbered."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        # What is no UTF-8 in an archive comes as lone surrogates.
        key = name.encode("utf-8", "backslashreplace").decode()
        seen[key] += 1
        keys.append(key if seen[key] == 1 else f"{key} ({seen[key]})")
    return keys


def _is_sample(parts: dict[str, Member]) -> bool:
    return LABEL in parts or any(ending in parts for ending in IMAGES)


def _mask_index(entry: Any) -> int | None:
    extra = entry.get("extra_info")
    index = extra.get("detection_npz_idx") if isinstance(extra, dict) else None
    if not isinstance(index, (int, np.integer, np.ndarray)):
        return None
    value = np.asarray(index)
    return int(value.reshape(())) if value.size == 1 and value.dtype.kind in "iu" else None


def _npz_field(data: bytes, field: str, source: str) -> np.ndarray:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return np.asarray(archive[field])
    except Exception as error:  # a damaged zip can raise nearly anything
        found = f"cannot be read ({type(error).__name__}: {error})"
        raise InputError(source, field, found, "Write the member again.") from error
