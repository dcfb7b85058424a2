"""What is finished: one line a shard, appended and flushed, with counts and checksums.

Appending costs the same for the first and for the 100,000th shard. A line that a crash cut short is not
counted: its shard is put together again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from depthfit.pseudo.layout import Layout

Entry = dict[str, Any]


class Manifest:
    """The manifest of an output folder. Only the process that holds the lock writes it.

    Args:
        layout: Of the folder.

    Attributes:
        entries: By unit; the last line of a unit counts.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.entries: dict[str, Entry] = {}
        self._whole = 0
        if layout.manifest.is_file():
            self._read(layout.manifest.read_bytes())

    def _read(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            entry = _parse(line)
            if entry is None:
                # Only the last line can be cut short; what follows a torn one is not trusted.
                break
            self.entries[entry["unit"]] = entry
            self._whole += len(line)

    def append(self, entry: Entry) -> None:
        """Add a shard and flush it to disk."""
        body = json.dumps(entry, sort_keys=True)
        line = json.dumps({"sha256": _digest(body), "entry": entry}, sort_keys=True).encode() + b"\n"
        with open(self.layout.manifest, "r+b" if self.layout.manifest.is_file() else "xb") as file:
            file.truncate(self._whole)
            file.seek(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self.entries[entry["unit"]] = entry

    def is_done(self, unit: str) -> bool:
        """Whether a shard is in the manifest and its files are there in full length."""
        entry = self.entries.get(unit)
        return entry is not None and all(
            _length(self.layout.root / name) == file["bytes"] for name, file in entry["files"].items()
        )


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def file_entry(path: Path) -> dict[str, Any]:
    """Length and checksum of a file."""
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def _parse(line: bytes) -> Entry | None:
    try:
        content = json.loads(line)
        entry: Entry = content["entry"]
        whole = line.endswith(b"\n") and content["sha256"] == _digest(json.dumps(entry, sort_keys=True))
    except (ValueError, KeyError, TypeError):
        return None
    return entry if whole else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
