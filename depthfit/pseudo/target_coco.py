"""COCO annotations with an ``smpl`` extension."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.evidence.files import read_json
from depthfit.pseudo.records import REFINED
from depthfit.pseudo.source_coco import EXTENSION, is_person
from depthfit.pseudo.tars import copy_file

DIGITS = 6


def rewrite(source: Path, target: Path, rows: Iterable[dict[str, Any]], provenance: dict[str, Any]) -> None:
    """The source's file with the refined bodies in it, and without those who are dropped.

    An annotation gets ``smpl``: pose (72) axis-angle rad with the root first, betas (10), transl (3) m of
    SMPL, all in the camera's frame, and that camera: focal and center (2), px.

    Args:
        source: The annotation file.
        target: File to write.
        rows: Of all people.
        provenance: Of the run; written to ``info.depthfit``.
    """
    by_person = {(row["key"], row["person"]): row for row in rows}
    if all(row["written"] and row["outcome"] != REFINED for row in by_person.values()):
        copy_file(source, target)
        return
    content = read_json(source)
    names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
    seen: dict[str, int] = {}
    kept = []
    for entry in content["annotations"]:
        if not is_person(entry):
            kept.append(entry)
            continue
        name = names[int(entry["image_id"])]
        seen[name] = seen.get(name, 0) + 1
        row = by_person[name, seen[name]]
        if row["outcome"] == REFINED:
            kept.append({**entry, EXTENSION: _body(row)})
        elif row["written"]:
            kept.append(entry)
    info = content.get("info")
    content["info"] = {**(info if isinstance(info, dict) else {}), "depthfit": provenance}
    content["annotations"] = kept
    with target.open("w") as file:
        json.dump(content, file)


def _body(row: dict[str, Any]) -> dict[str, Any]:
    def numbers(name: str) -> list[float]:
        return np.asarray(row[name], dtype=np.float64).round(DIGITS).tolist()

    return {
        "pose": numbers("pose"),
        "betas": numbers("betas"),
        "transl": numbers("smpl_transl"),
        "focal": round(float(row["focal"]), DIGITS),
        "center": numbers("center"),
        "joint_sd_mm": round(float(row["joint_sd"]), 1),
    }
