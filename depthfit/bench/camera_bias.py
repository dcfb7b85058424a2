"""What a regressor's camera does to true bodies: 2D alignment, and the thresholds of TALS that follow.

The measurement of section 3.2 of Dwivedi et al., "TokenHMR" (CVPR 2024): true bodies, put where the
regressor's crop camera puts its own, do not meet the true keypoints. By how much they miss is the threshold
below which TALS distrusts a 2D error; how far the predicted joint angles are off is that for poses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from depthfit import so3
from depthfit.atomic import atomic_path
from depthfit.body.load import load_body
from depthfit.camera import full_image_translation, regressor_focal
from depthfit.errors import InputError
from depthfit.evaluation import metrics, pck
from depthfit.evaluation.errors import image_points
from depthfit.evaluation.matching import keys, stems
from depthfit.evaluation.score import FIT_FIELDS, TRUTH_FIELDS, load_table, take
from depthfit.evidence.files import decode_image, read_bytes
from depthfit.evidence.predictions import Predictions, read_predictions
from depthfit.joints import COCO17, SMPL_JOINTS
from depthfit.report.score_tables import interval_text
from depthfit.residuals import tals
from depthfit.run.config import ModelConfig

THRESHOLDS = (0.5, 1.0)
CROP_PX = 256


@dataclass
class CameraBiasConfig:
    """Settings of ``depthfit bench camera``.

    Attributes:
        scene: Scene folder with predictions.npz and ground_truth.npz.
        fits: fits.npz of that scene.
        out: Folder of the table.
        models: The body of predictions and truth.
    """

    scene: str | None = None
    fits: str | None = None
    out: str = "output/bench"
    models: ModelConfig = field(default_factory=ModelConfig)


@dataclass(frozen=True)
class CameraBias:
    """Result of :func:`measure`.

    Attributes:
        people, images: How many were measured.
        alignment: Per kind of body and camera: PCK at ``THRESHOLDS`` of the head, with 95 % intervals over
            images, as (mean, low, high).
        keypoint_names: (K,) and keypoint_thresholds (K,) in sides of the crop, by the paper's rule.
        pose_thresholds: (24,) rad, root first, by the paper's rule.
    """

    people: int
    images: int
    alignment: dict[str, list[tuple[float, float, float]]]
    keypoint_names: tuple[str, ...]
    keypoint_thresholds: NDArray[np.float64]
    pose_thresholds: NDArray[np.float64]


def run_camera_bias(config: CameraBiasConfig) -> str:
    """Measure and tabulate; returns the Markdown, also written to ``out``.

    Raises:
        InputError: A file is missing or the files do not belong together.
    """
    if config.scene is None or config.fits is None:
        fix = "Name both: scene=FOLDER fits=OUT/fits.npz."
        raise InputError("command line", "scene, fits", "not given", fix)
    found = measure(Path(config.scene), Path(config.fits), config)
    text = markdown(found)
    with atomic_path(Path(config.out) / "camera.md") as temporary:
        temporary.write_text(text)
    return text


def measure(scene_folder: Path, fits_npz: Path, config: CameraBiasConfig) -> CameraBias:
    """The alignment of true bodies under three cameras, and TALS's thresholds."""
    fits, truth = (
        load_table(fits_npz, FIT_FIELDS),
        load_table(scene_folder / "ground_truth.npz", TRUTH_FIELDS),
    )
    predictions, _ = read_predictions(scene_folder / "predictions.npz")
    fits, truth, predictions = _common(fits, truth, predictions, scene_folder)
    local = truth["keypoints_3d"] - truth["joints"][:, :1]
    regressor = _under_regressor(local, truth, predictions, scene_folder, config)
    refined = _project(local + fits["joints"][:, :1], fits["K"])
    xy, visible = image_points(truth)
    names = [str(n) for n in truth["keypoint_names"]]
    chosen = [names.index(n) for n in COCO17]
    size = pck.person_size(xy, visible, names, "head")
    groups = stems(truth)

    def shares(predicted: NDArray) -> list[tuple[float, float, float]]:
        out = []
        for threshold in THRESHOLDS:
            values = pck.pck(predicted[:, chosen], xy[:, chosen], visible[:, chosen], size, threshold)
            known = np.isfinite(values)
            low, high = metrics.bootstrap_interval(values[known], groups[known])
            out.append((float(values[known].mean()), low, high))
        return out

    crop = predictions.box_size[:, None, None]
    thresholds = tals.keypoint_thresholds(
        torch.from_numpy(regressor / crop), torch.from_numpy(xy / crop), torch.from_numpy(visible)
    )
    alignment = {
        "the regressor's own bodies, its camera": shares(fits["initial_keypoints_2d"]),
        "true bodies, the regressor's camera": shares(regressor),
        "true bodies, the refined camera": shares(refined),
    }
    angles = _pose_thresholds(truth, predictions)
    counts = len(groups), len(np.unique(groups))
    return CameraBias(*counts, alignment, tuple(names), thresholds.numpy(), angles)


def _common(
    fits: dict[str, np.ndarray], truth: dict[str, np.ndarray], predictions: Predictions, source: Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Predictions]:
    """Rows of the people that all three know, in the order of the truth."""
    predicted = keys({"imgname": predictions.imgname, "person": predictions.person})
    where = {key: i for i, key in enumerate(keys(fits))}
    place = {key: i for i, key in enumerate(predicted)}
    rows = [(where[key], i, place[key]) for i, key in enumerate(keys(truth)) if key in where and key in place]
    if not rows:
        fix = "The fits must be of this scene."
        raise InputError(source, "imgname, person", "nobody in common", fix)
    f, t, p = np.array(rows).T
    return take(fits, f), take(truth, t), predictions.rows(p)


def _under_regressor(
    local: NDArray,
    truth: dict[str, np.ndarray],
    predictions: Predictions,
    scene_folder: Path,
    config: CameraBiasConfig,
) -> NDArray[np.float64]:
    """(N, K, 2) px of true keypoints where the prediction's camera would put its own body."""
    files = {path.stem: path for path in (scene_folder / "images").iterdir()}
    sizes = {
        stem: decode_image(files[stem], read_bytes(files[stem]), cv2.IMREAD_COLOR).shape[1::-1]
        for stem in np.unique(stems(truth)).tolist()
    }
    size = torch.tensor([sizes[stem] for stem in stems(truth).tolist()], dtype=torch.float32)
    focal = regressor_focal(size[:, 0], size[:, 1])
    shift = full_image_translation(
        torch.from_numpy(predictions.pred_cam),
        torch.from_numpy(predictions.box_center),
        torch.from_numpy(predictions.box_size),
        size,
        focal,
    )
    body = load_body(config.models.body, config.models.gender)
    betas = torch.from_numpy(np.asarray(truth["betas"], np.float32))[:, : body.num_betas]
    rest = body.joint_template[0] + torch.einsum("cb,nb->nc", body.joint_shapedirs[0], betas)
    K = np.zeros((len(local), 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = focal.numpy()
    K[:, :2, 2], K[:, 2, 2] = (size.numpy() - 1) / 2, 1
    return _project(local + (shift + rest).numpy()[:, None], K)


def _project(points: NDArray, K: NDArray) -> NDArray[np.float64]:
    seen = points @ K.transpose(0, 2, 1)
    return seen[..., :2] / seen[..., 2:]


def _pose_thresholds(truth: dict[str, np.ndarray], predictions: Predictions) -> NDArray[np.float64]:
    turns = np.concatenate([truth["global_orient"], truth["body_pose"]], 1).reshape(-1, len(SMPL_JOINTS), 3)
    true = so3.exp(torch.from_numpy(turns).double())
    predicted = torch.from_numpy(np.concatenate([predictions.root[:, None], predictions.pose], 1)).double()
    return tals.pose_thresholds(predicted, true).numpy()


def markdown(found: CameraBias) -> str:
    """The tables: alignment, keypoint thresholds beside the code's, pose thresholds beside the code's."""
    lines = [
        f"{found.people} people in {found.images} images; COCO's 17 points, 95 % intervals over images.",
        "",
        "| bodies and camera | PCK 0.5 of head | PCK 1.0 of head |",
        "|---|---|---|",
    ]
    for name, shares in found.alignment.items():
        cells = (interval_text(*share, ".2f") for share in shares)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| keypoint | threshold, px of a 256 px crop |", "|---|---|"]
    for name, value in zip(found.keypoint_names, found.keypoint_thresholds, strict=True):
        lines.append(f"| {name.replace('_', ' ')} | {value * CROP_PX:.1f} |")
    lines += ["", "| joint | threshold, degrees | the code's, degrees |", "|---|---|---|"]
    theirs = np.array([tals.CODE_ROOT_THRESHOLD, *tals.CODE_POSE_THRESHOLDS])
    theirs[1:] *= tals.CODE_POSE_SCALE
    for joint, ours, code in zip(SMPL_JOINTS, found.pose_thresholds, theirs, strict=True):
        lines.append(f"| {joint.replace('_', ' ')} | {np.degrees(ours):.1f} | {np.degrees(code):.1f} |")
    return "\n".join(lines) + "\n"
