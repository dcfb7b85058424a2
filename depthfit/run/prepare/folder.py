"""What is done in a scene folder, and by whom: records of ``depthfit prepare`` in its hidden folder.

A stage writes a record for every image that it finished. A file of the scene without a record is somebody
else's, and is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.atomic import atomic_path
from depthfit.errors import InputError
from depthfit.evidence.files import read_json
from depthfit.evidence.keypoints import KeypointPerson

HIDDEN = ".prepare"
SETTINGS = "settings.json"
IN_SCENE = "the scene's own files"
"""Source of a stage whose files somebody else put into the scene."""


@dataclass(frozen=True)
class Found:
    """The people of one image.

    Attributes:
        boxes: (n, 4) px, x0 y0 x1 y1, in pixel edges.
        people: Their keypoints; ``None`` before these are known.
    """

    boxes: np.ndarray
    people: tuple[KeypointPerson, ...] | None = None

    def record(self) -> dict[str, Any]:
        """As JSON."""
        people = None
        if self.people is not None:
            people = [np.column_stack([p.xy, p.confidence]).tolist() for p in self.people]
        return {"boxes": self.boxes.tolist(), "people": people}

    @staticmethod
    def read(record: dict[str, Any]) -> Found:
        """From JSON."""
        boxes = np.array(record["boxes"], dtype=np.float64).reshape(-1, 4)
        if record["people"] is None:
            return Found(boxes)
        rows = [np.array(rows, dtype=np.float64) for rows in record["people"]]
        return Found(boxes, tuple(KeypointPerson(row[:, :2], row[:, 2]) for row in rows))


class Records:
    """The records of one scene folder."""

    def __init__(self, scene: Path) -> None:
        self.scene = scene
        self.root = scene / HIDDEN

    def path(self, stage: str, name: str) -> Path:
        return self.root / stage / f"{name}.json"

    def has(self, stage: str, name: str) -> bool:
        """Whether a stage is done for an image."""
        return self.path(stage, name).is_file()

    def read(self, stage: str, name: str) -> dict[str, Any]:
        """The record of a stage that is done."""
        content: dict[str, Any] = read_json(self.path(stage, name))
        return content

    def write(self, stage: str, name: str, record: dict[str, Any]) -> None:
        """Say that a stage is done. Its files are written before."""
        with atomic_path(self.path(stage, name)) as temporary:
            temporary.write_text(json.dumps(record))

    def names(self, stage: str) -> list[str]:
        """Images for which a stage is done."""
        folder = self.root / stage
        return sorted(path.stem for path in folder.glob("*.json") if not path.name.startswith("."))

    def ours(self, stage: str) -> bool:
        """Whether prepare itself made this stage's files here."""
        return self._settings().get(stage, {"source": IN_SCENE})["source"] != IN_SCENE

    def begin(self, stage: str, settings: dict[str, Any]) -> None:
        """Note a stage's settings; results of others are not mixed with these.

        Raises:
            InputError: The folder holds results of other settings.
        """
        known = self._settings()
        before = known.get(stage)
        if before is not None and before != settings:
            keys = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
            found = f"the scene's {stage} were made with other settings ({', '.join(keys)})"
            raise InputError(self.scene, stage, found, "Give another SCENE, or overwrite=true.")
        known[stage] = settings
        with atomic_path(self.root / SETTINGS) as temporary:
            temporary.write_text(json.dumps(known, indent=1))

    def forget(self, stage: str) -> None:
        """Remove a stage's records and its settings."""
        for name in self.names(stage):
            self.path(stage, name).unlink()
        known = self._settings()
        if known.pop(stage, None) is not None:
            with atomic_path(self.root / SETTINGS) as temporary:
                temporary.write_text(json.dumps(known, indent=1))

    def _settings(self) -> dict[str, Any]:
        path = self.root / SETTINGS
        content: dict[str, Any] = read_json(path) if path.is_file() else {}
        return content
