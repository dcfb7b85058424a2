"""Refine the people of your own regressor: write what it says as predictions.npz, then fit.

    python examples/own_regressor.py SCENE [KEYPOINT_FORMAT]
    python run_fit.py scene=SCENE init=predictions keypoints.format=KEYPOINT_FORMAT

Put your network into ``predict``. What stands there now sees nobody: it says that everybody stands upright,
faces the camera and is 1.6 m tall from eyes to ankles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from baselines.hmr.people import people_of
from depthfit.camera import box_camera
from depthfit.errors import InputError
from depthfit.evidence.predictions import Predictions, write_predictions
from depthfit.evidence.scene import read_scene


def predict(image: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray | float]:
    """SMPL's parameters of the person in ``box`` (x0, y0, x1, y1, px) of ``image`` (H, W, 3) RGB.

    Rotations in the camera's frame (x right, y down, z forward); ``transl`` is SMPL's, in metres, under the
    focal length that your regressor assumes. CLIFF, for one, takes the image's diagonal in pixels.
    """
    height, width = image.shape[:2]
    focal = float(np.hypot(width, height))
    center, tall = (box[:2] + box[2:]) / 2, box[3] - box[1]
    depth = 1.6 * focal / tall
    side = (center - np.array([width, height]) / 2) * depth / focal
    return {
        "root": np.diag([1.0, -1.0, -1.0]),
        "pose": np.tile(np.eye(3), (23, 1, 1)),
        "betas": np.zeros(10),
        "transl": np.array([side[0], side[1], depth]),
        "focal": focal,
    }


def main(root: Path, keypoint_format: str | None) -> None:
    """Predict everybody whom the scene's masks or keypoints show."""
    scene = read_scene(root, keypoint_format, with_predictions=False)
    rows = []
    for name in scene.names:
        evidence = scene.read(name)
        for number, box in people_of(evidence, None):
            said = predict(evidence.pixels(), box)
            # The square around the person. Boxes count pixel edges, the file counts pixel centres.
            center, size = (box[:2] + box[2:]) / 2 - 0.5, max(box[2:] - box[:2])
            # A regressor of HMR's kind has (s, tx, ty) of its crop already: leave this out.
            camera = box_camera(
                *(torch.as_tensor(v, dtype=torch.float64) for v in (said["transl"], center, size)),
                image_size=torch.tensor(evidence.size),
                focal=torch.tensor(said["focal"]),
            )
            rows.append((evidence.path.name, number, center, size, camera.numpy(), said))
    if not rows:
        raise SystemExit(f"{root}: neither masks nor keypoints show anybody")
    predictions = Predictions(
        imgname=np.array([row[0] for row in rows]),
        person=np.array([row[1] for row in rows]),
        box_center=np.stack([row[2] for row in rows]),
        box_size=np.array([row[3] for row in rows]),
        pred_cam=np.stack([row[4] for row in rows]),
        root=np.stack([row[5]["root"] for row in rows]),
        pose=np.stack([row[5]["pose"] for row in rows]),
        betas=np.stack([row[5]["betas"] for row in rows]),
    )
    write_predictions(root / "predictions.npz", predictions)
    print(f"{root / 'predictions.npz'}: {len(predictions)} people")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write what your own regressor says as predictions.npz.")
    parser.add_argument("scene", type=Path)
    parser.add_argument("keypoint_format", nargs="?", help="of a folder keypoints/, such as coco17")
    given = parser.parse_args()
    try:
        main(given.scene, given.keypoint_format)
    except InputError as error:
        parser.error(str(error))
