"""Scene folders with ground truth."""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from omegaconf import OmegaConf
from rich.progress import track

from depthfit import __version__, so3
from depthfit.errors import InputError
from depthfit.evidence.predictions import SIMULATED, Predictions, write_predictions
from depthfit.joints import KEYPOINTS
from depthfit.synth.config import SynthConfig
from depthfit.synth.generate import SyntheticImage, open_studio, sample

PNG_LEVEL = 3


def make_scene(config: SynthConfig, out: str | Path, progress: bool = True) -> Path:
    """Write a scene folder with ``ground_truth.npz`` and ``synth.yaml``. Same config, same bytes.

    The folder appears under its name only when it is complete. There is no ``cameras.json``: finding the
    focal length is the task.

    Args:
        config: Settings.
        out: The folder to make.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        InputError: ``out`` exists and is not an empty folder, or a setting is unusable.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(out, "output folder", "it exists already", "Name another one, or delete it first.")
    studio = open_studio(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        for part in ("images", "keypoints", "depth", "masks"):
            (partial / part).mkdir()
        truths, predictions = [], []
        images = track(
            sample(config, studio), total=config.images, description="Making images", disable=not progress
        )
        for image in images:
            _write_image(partial, image)
            truths.append(ground_truth(image, config.vertices))
            predictions.append(_prediction_rows(image))
        write_predictions(partial / "predictions.npz", _concatenate_predictions(predictions))
        np.savez_compressed(partial / "ground_truth.npz", **_concatenate(truths))  # type: ignore[arg-type]
        settings = {"depthfit_version": __version__, "config": dataclasses.asdict(config)}
        OmegaConf.save(OmegaConf.create(settings), partial / "synth.yaml")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return out


def ground_truth(image: SyntheticImage, vertices: bool = True) -> dict[str, np.ndarray]:
    """The truth of one image as columns, one row a person.

    imgname, person, focal px, K (N, 3, 3), transl (N, 3) m, global_orient (N, 3) and body_pose (N, 69) rad,
    betas (N, 10), joints (N, 24, 3) m, keypoints_3d (N, 27, 3) m, keypoint_names (27,), height_m (N,) of the
    rest mesh, clothes_m (N,) mean over the surface, unhidden (N,) share of the silhouette that others leave
    visible, pose_kind, and vertices (N, V, 3) m of the naked body. All in the camera's frame.
    """
    camera, people = image.world.camera, image.world.people
    count = len(people)

    def stack(values: list[torch.Tensor]) -> np.ndarray:
        return torch.stack(values).numpy()

    columns = {
        "imgname": np.array([f"{image.name}.png"] * count),
        "person": np.arange(1, count + 1),
        "focal": np.full(count, camera.focal),
        "K": stack([camera.K] * count),
        "transl": stack([p.transl for p in people]),
        "global_orient": stack([so3.log(p.person.root) for p in people]),
        "body_pose": stack([so3.log(p.person.pose).flatten() for p in people]),
        "betas": stack([p.person.betas for p in people]),
        "joints": stack([p.joints for p in people]),
        "keypoints_3d": stack([p.keypoints for p in people]),
        "keypoint_names": np.array(KEYPOINTS),
        "height_m": np.array([p.person.shape.height for p in people]),
        "clothes_m": np.array([p.person.shape.mean_clothes for p in people]),
        "unhidden": image.picture.unhidden,
        "pose_kind": np.array([p.person.kind for p in people]),
    }
    if vertices:
        columns["vertices"] = stack([p.person.vertices + p.transl for p in people])
    return columns


def _write_image(folder: Path, image: SyntheticImage) -> None:
    name = image.name
    _write_png(folder / "images" / f"{name}.png", cv2.cvtColor(image.picture.image, cv2.COLOR_RGB2BGR))
    _write_png(folder / "masks" / f"{name}.png", image.masks)
    # Half precision is 0.05 %, a twentieth of the network's own pixel noise.
    depth, focal = image.depth.astype(np.float16), np.float32(image.focal)
    np.savez_compressed(folder / "depth" / f"{name}.npz", depth=depth, focallength_px=focal)
    # Detectors know nothing of a regressor's order of people.
    order = np.random.default_rng(int(name)).permutation(len(image.keypoints))
    people = [{"pose_keypoints_2d": np.round(image.keypoints[k], 3).ravel().tolist()} for k in order]
    (folder / "keypoints" / f"{name}_keypoints.json").write_text(json.dumps({"people": people}))


def _write_png(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]):
        raise OSError(f"cannot write {path}")


def _prediction_rows(image: SyntheticImage) -> Predictions:
    p = image.predictions
    count = len(p.betas)
    return Predictions(
        imgname=np.array([f"{image.name}.png"] * count),
        person=np.arange(1, count + 1),
        box_center=p.box_center.astype(np.float32),
        box_size=p.box_size.astype(np.float32),
        pred_cam=p.pred_cam.astype(np.float32),
        root=p.root.numpy(),
        pose=p.pose.numpy(),
        betas=p.betas.numpy(),
        token_probs=p.token_probs,
        regressor=SIMULATED,
    )


def _concatenate_predictions(parts: list[Predictions]) -> Predictions:
    columns: dict[str, Any] = {}
    for field in dataclasses.fields(Predictions):
        values = [getattr(part, field.name) for part in parts]
        columns[field.name] = np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]
    return Predictions(**columns)


def _concatenate(parts: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    shared = ("keypoint_names",)
    return {
        name: parts[0][name] if name in shared else np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }
