"""COCO person keypoints: labels in the image alone, 17 points a person.

``images`` with id and file_name, ``annotations`` with image_id, ``keypoints`` [x, y, v] x 17 (v = 0 not
labelled, 1 hidden, 2 seen), ``num_keypoints``, ``bbox`` [x, y, w, h] and ``iscrowd``. (Lin et al., "Microsoft
COCO: Common Objects in Context", ECCV 2014.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.datasets.labels import (
    ImageSource,
    LabelledScene,
    People,
    from_names,
    number_people,
    place_images,
)
from depthfit.datasets.npz import as_numbers
from depthfit.errors import InputError
from depthfit.evidence.files import read_json
from depthfit.joints import COCO17, NUM_JOINTS

PART = 500
"""Images of one scene."""
MIN_KEYPOINTS = 6
"""People with fewer labelled points tell little."""


@dataclass(frozen=True)
class Coco:
    """COCO's labelled people, in parts of ``PART`` images.

    Attributes:
        root: Folder of the images; labels: ``person_keypoints_val2017.json`` or the like.
        every: Take every so many images.
    """

    root: Path
    labels: Path
    every: int = 1

    def names(self) -> list[str]:
        """The parts."""
        count = -(-len(self._people()) // PART)
        return [f"coco_{part:03d}" for part in range(count)]

    def read(self, name: str) -> LabelledScene:
        """One part: labels without 3D, in which a keypoint counts if it is labelled at all."""
        first = int(name.rpartition("_")[2]) * PART
        chosen = list(self._people().items())[first : first + PART]
        imgname = [Path(file).name for file, people in chosen for _ in people]
        entries = [entry for _, people in chosen for entry in people]
        triples = np.array([np.reshape(entry["keypoints"], (17, 3)) for entry in entries], np.float64)
        labelled = triples[..., 2] > 0
        triples = np.where(labelled[..., None], triples, 0)
        triples[..., 2] = labelled
        box = as_numbers(self.labels, "bbox", [entry["bbox"] for entry in entries], (len(entries), 4))
        count = len(entries)

        def unknown(*shape: int) -> np.ndarray:
            return np.full((count, *shape), np.nan)

        people = People(
            imgname=imgname,
            person=number_people(imgname),
            gender=["neutral"] * count,
            root=unknown(3),
            pose=unknown(3 * (NUM_JOINTS - 1)),
            betas=unknown(10),
            pelvis=unknown(3),
            K=unknown(3, 3),
            group=imgname,
            keypoints=from_names(COCO17, triples),
            boxes=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], -1),
        )
        images = place_images(
            [Path(file).name for file, _ in chosen], [ImageSource(self.root / file) for file, _ in chosen]
        )
        return LabelledScene(name, images, people)

    def _people(self) -> dict[str, list[dict[str, Any]]]:
        """Usable annotations by file name, in the order of names."""
        content = read_json(self.labels)
        if not isinstance(content, Mapping) or not {"images", "annotations"} <= set(content):
            fix = "Give COCO's person_keypoints annotations."
            raise InputError(self.labels, "images, annotations", "missing", fix)
        files = {image["id"]: str(image["file_name"]) for image in content["images"]}
        out: dict[str, list[dict[str, Any]]] = {}
        for entry in content["annotations"]:
            usable = not entry.get("iscrowd") and entry.get("num_keypoints", 0) >= MIN_KEYPOINTS
            if usable and entry["image_id"] in files:
                out.setdefault(files[entry["image_id"]], []).append(entry)
        if not out:
            found = f"nobody with {MIN_KEYPOINTS} keypoints"
            raise InputError(self.labels, "annotations", found, "Give COCO's person_keypoints annotations.")
        return {file: out[file] for k, file in enumerate(sorted(out)) if k % self.every == 0}
