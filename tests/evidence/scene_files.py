"""Files of a scene folder in their exact formats, for tests to read and to spoil."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.evidence.predictions import Predictions, read_predictions, write_predictions
from depthfit.joints import KEYPOINT_FORMATS

WIDTH, HEIGHT = 64, 48


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def flat_points(keypoint_format: str, offset: float = 0.0) -> list[float]:
    """x, y, c of each point: point i lies at (10 + i, 5 + 2 i) + offset."""
    count = len(KEYPOINT_FORMATS[keypoint_format])
    return [v for i in range(count) for v in (10.0 + i + offset, 5.0 + 2 * i + offset, 0.5 + i / 100)]


def make_predictions(names: list[str], people: list[int], seed: int = 0) -> Predictions:
    rng, count = np.random.default_rng(seed), len(names)
    rotations = Rotation.from_rotvec(rng.normal(0, 0.8, (count * 24, 3))).as_matrix()
    rotations = rotations.reshape(count, 24, 3, 3).astype(np.float32)
    return Predictions(
        imgname=np.array(names),
        person=np.array(people),
        box_center=rng.uniform(10, 40, (count, 2)).astype(np.float32),
        box_size=rng.uniform(20, 40, count).astype(np.float32),
        pred_cam=rng.uniform(0.5, 1, (count, 3)).astype(np.float32),
        root=rotations[:, 0],
        pose=rotations[:, 1:],
        betas=rng.normal(0, 1, (count, 10)).astype(np.float32),
    )


def mark_predictions(scene: Path, regressor: str) -> None:
    """Have a scene's predictions.npz be one that depthfit made with ``regressor``."""
    predictions, _ = read_predictions(scene / "predictions.npz")
    write_predictions(scene / "predictions.npz", replace(predictions, regressor=regressor))


def prediction_columns(names: list[str], people: list[int]) -> dict[str, np.ndarray]:
    """The columns of predictions.npz, matrices."""
    p = make_predictions(names, people)
    return {
        "imgname": p.imgname,
        "person": p.person,
        "box_center": p.box_center,
        "box_size": p.box_size,
        "pred_cam": p.pred_cam,
        "global_orient": p.root[:, None],
        "body_pose": p.pose,
        "betas": p.betas,
    }
