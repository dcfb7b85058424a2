"""A complete scene folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.evidence.scene_files import HEIGHT, WIDTH, flat_points, prediction_columns, write_json


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Images a.jpg and b.png; everything is known of a, nothing of b."""
    root = tmp_path / "scene"
    for part in ("images", "keypoints", "depth", "masks"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))
    cv2.imwrite(str(root / "images" / "a.jpg"), smooth)
    cv2.imwrite(str(root / "images" / "b.png"), smooth)
    person = {"person_id": [-1], "pose_keypoints_2d": flat_points("body25"), "face_keypoints_2d": []}
    write_json(root / "keypoints" / "a_keypoints.json", {"version": 1.3, "people": [person]})
    depth = np.full((HEIGHT, WIDTH), 3.0, np.float32)
    np.savez(root / "depth" / "a.npz", depth=depth, focallength_px=np.float32(50))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:40, 10:30] = 1
    mask[10:40, 40:50] = 2
    cv2.imwrite(str(root / "masks" / "a.png"), mask)
    write_json(root / "cameras.json", {"a": {"focal_px": 70.0, "sigma_log_focal": 0.02}})
    np.savez(root / "predictions.npz", **prediction_columns(["a.jpg", "a.jpg"], [1, 2]))
    return root
