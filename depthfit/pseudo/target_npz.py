"""CameraHMR's label file, from BEDLAM's or CameraHMR's own, or anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.evidence.keypoints import KeypointPerson
from depthfit.joints import KEYPOINTS
from depthfit.pseudo.labels import NUM_BETAS, NUM_POINTS, NUM_POSE, to_44
from depthfit.pseudo.npz_columns import column_names, encode, raw_column, read_column, write_columns
from depthfit.pseudo.records import REFINED
from depthfit.pseudo.source_npz import read_columns
from depthfit.pseudo.tars import copy_file

STALE = ("pose_world", "trans_world", "proj_verts")
"""Fields that follow from the label and that nothing here computes: NaN where the label is refined."""
PROVENANCE = "depthfit_provenance"
BOX_MARGIN = 1.2
BOX_UNIT = 200.0
"""px: CameraHMR's boxes are 1.2 times the person and counted in this."""
Row = dict[str, Any]


def rewrite(source: Path, target: Path, rows: Iterable[Row], provenance: dict[str, Any]) -> None:
    """The source's file with refined rows changed and dropped rows left out; all else byte by byte.

    Args:
        source: BEDLAM's or CameraHMR's npz.
        target: File to write.
        rows: Of all people.
        provenance: Of the run.
    """
    order = read_columns(str(source)).order
    placed = {order[row["key"]][row["person"] - 1]: row for row in rows}
    count = sum(map(len, order.values()))
    kept = np.array([placed[n]["written"] for n in range(count)], dtype=bool)
    refined = [n for n in range(count) if placed[n]["outcome"] == REFINED]
    if kept.all() and not refined:
        copy_file(source, target)
        return
    names = column_names(source)
    changed = _changed_columns(source, names, placed, refined, count)
    columns: dict[str, bytes] = {}
    for name in [*names, *(n for n in changed if n not in names)]:
        if name not in changed and kept.all():
            columns[name] = raw_column(source, name)
            continue
        array = changed[name] if name in changed else read_column(source, name)
        per_row = array.ndim > 0 and len(array) == count
        if array.dtype.hasobject:
            array = array.astype(np.str_)
        columns[name] = encode(array[kept] if per_row else array)
    columns[PROVENANCE] = encode(np.array(json.dumps(provenance, sort_keys=True)))
    write_columns(target, columns)


def _changed_columns(
    source: Path, names: list[str], placed: dict[int, Row], refined: list[int], count: int
) -> dict[str, np.ndarray]:
    if not refined:
        return {}
    rows = [placed[n] for n in refined]

    def stack(name: str) -> np.ndarray:
        return np.stack([row[name] for row in rows])

    pose_name = "pose_cam" if "pose_cam" in names else "pose"
    pose, betas, cam_int = (read_column(source, n).copy() for n in (pose_name, "shape", "cam_int"))
    if pose.ndim == 3:
        pose[refined] = stack("pose").reshape(len(rows), -1, 3)[:, : pose.shape[1]]
    else:
        pose[refined, :NUM_POSE] = stack("pose")
    betas[refined, :NUM_BETAS] = stack("betas")
    cam_int[refined, 0, 0] = cam_int[refined, 1, 1] = stack("focal")
    # The image's, which a row's own matrix may lack or contradict.
    cam_int[refined, :2, 2] = stack("center")
    transl = stack("smpl_transl")
    if "cam_ext" in names:
        # The loaders add this to trans_cam.
        transl = transl - read_column(source, "cam_ext")[refined][:, :3, 3]
    before = read_column(source, "trans_cam") if "trans_cam" in names else np.zeros((count, 3), np.float32)
    moved = before.copy()
    moved[refined] = transl
    out = {pose_name: pose, "shape": betas, "cam_int": cam_int, "trans_cam": moved}
    for name in STALE:
        if name in names:
            array = read_column(source, name)
            if array.dtype.kind == "f" and len(array) == count:
                out[name] = array.copy()
                out[name][refined] = np.nan
    return out


def write_new(target: Path, rows: Iterable[Row], provenance: dict[str, Any]) -> None:
    """A label file of the refined people of any other source.

    Args:
        target: File to write.
        rows: Of all people.
        provenance: Of the run.
    """
    people = [row for row in rows if row["outcome"] == REFINED]
    points = np.array([row["detected"] for row in people], np.float32).reshape(len(people), len(KEYPOINTS), 3)
    boxes = [_box(p) for p in points]
    K = np.zeros((len(people), 3, 3), np.float32)
    for n, row in enumerate(people):
        K[n] = [[row["focal"], 0, row["center"][0]], [0, row["focal"], row["center"][1]], [0, 0, 1]]

    def stack(name: str, width: int) -> np.ndarray:
        return np.array([row[name] for row in people], np.float32).reshape(len(people), width)

    joints = [to_44(KeypointPerson(p[:, :2], p[:, 2])) for p in points]
    columns = {
        "imgname": np.array([row["key"] for row in people], dtype=np.str_),
        "person": np.array([row["person"] for row in people], dtype=np.int64),
        "center": np.array([b[:2] for b in boxes], np.float32).reshape(len(people), 2),
        "scale": np.array([b[2] for b in boxes], np.float32),
        "pose_cam": stack("pose", NUM_POSE),
        "shape": stack("betas", NUM_BETAS),
        "trans_cam": stack("smpl_transl", 3),
        "cam_int": K,
        "gtkps": np.array(joints, np.float32).reshape(len(people), NUM_POINTS, 3),
        "gender": np.array(["neutral"] * len(people), dtype=np.str_),
        PROVENANCE: np.array(json.dumps(provenance, sort_keys=True)),
    }
    write_columns(target, {name: encode(array) for name, array in columns.items()})


def _box(points: np.ndarray) -> tuple[float, float, float]:
    """Centre (px) and scale of the box around detected points (K, 3)."""
    found = points[points[:, 2] > 0, :2]
    low, high = found.min(0), found.max(0)
    x, y = (low + high) / 2
    return float(x), float(y), float(BOX_MARGIN * (high - low).max() / BOX_UNIT)
