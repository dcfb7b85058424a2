"""A synthetic scene as training tars, with the simulated regressor's bodies as the labels to be refined."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from depthfit import so3
from depthfit.evidence.files import read_bytes
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.match import match_people
from depthfit.evidence.scene import read_scene
from depthfit.pseudo import pickles
from depthfit.pseudo.labels import NUM_POINTS, to_44

JPEG_QUALITY = 90
OLD_LOSS = 1000.0
"""A fitting loss that the loaders' filter lets pass (they ask for less than 31,000)."""


def write_tars(
    scene_root: Path, out: Path, keypoint_format: str, images_a_tar: int, depth: bool = True
) -> list[Path]:
    """Write OUT/000000.tar, ... in the layout of 4D-Humans and TokenHMR.

    Args:
        scene_root: A scene folder with predictions, keypoints and masks.
        out: Folder of the tars.
        keypoint_format: Of the scene.
        images_a_tar: Images in each.
        depth: Also write KEY.depth.npz, where the scene has depth.
    """
    scene = read_scene(scene_root, keypoint_format)
    out.mkdir(parents=True, exist_ok=True)
    paths, names = [], list(scene.names)
    for first in range(0, len(names), images_a_tar):
        paths.append(out / f"{first // images_a_tar:06d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for name in names[first : first + images_a_tar]:
                evidence = scene.read(name)
                rows = evidence.predictions
                assert rows is not None
                pixels = cv2.cvtColor(evidence.pixels(), cv2.COLOR_RGB2BGR)
                ok, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                assert ok
                matching = match_people(evidence.people, rows.box_center, rows.box_size)
                found = [evidence.people[d] if d >= 0 else None for d in matching.detection]
                turns = torch.from_numpy(np.concatenate([rows.root[:, None], rows.pose], 1))
                poses = so3.log(turns).flatten(1).numpy()
                entries = [
                    label_entry(poses[n], rows.betas[n], found[n], rows.box_center[n], rows.box_size[n], n)
                    for n in range(len(rows))
                ]
                _add(archive, f"{name}.jpg", jpeg.tobytes())
                _add(archive, f"{name}.data.pyd", pickles.dumps(entries))
                if evidence.labels is not None:
                    masks = np.stack([evidence.labels == k for k in rows.person])
                    _add(archive, f"{name}.detection.npz", _npz(masks=masks))
                file = scene_root / "depth" / f"{name}.npz"
                if depth and file.is_file():
                    _add(archive, f"{name}.depth.npz", read_bytes(file))
    return paths


def label_entry(
    pose: np.ndarray,
    betas: np.ndarray,
    person: KeypointPerson | None,
    center: np.ndarray,
    side: float,
    index: int,
) -> dict[str, Any]:
    """One person's dict, in the types of the official files.

    Args:
        pose: (72,) rad; betas: (10,).
        person: Detected keypoints, or ``None``.
        center: (2,) px; side: px, of the box.
        index: Of the person's mask.
    """
    loss = np.empty((), dtype=object)
    loss[()] = {"reprojection_loss": OLD_LOSS, "total_loss": OLD_LOSS}
    return {
        "keypoints_2d": np.zeros((NUM_POINTS, 3), np.float32) if person is None else to_44(person),
        "keypoints_3d": np.zeros((NUM_POINTS, 4), np.float32),
        "center": np.asarray(center, np.float32),
        "scale": np.full(2, side / 200, np.float32),
        "body_pose": pose.astype(np.float32),
        "betas": betas.astype(np.float32),
        "has_body_pose": np.float32(1),
        "has_betas": np.float32(1),
        "extra_info": {"fitting_loss": loss, "detection_npz_idx": index},
    }


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
