"""What the training loaders of 4D-Humans and TokenHMR take from a tar, and CameraHMR's from a label file.

Samples are what webdataset makes of a stream: neighbours that share a key. Fields are used in the ways, and
filters stand in the order, of those loaders, with the thresholds of their released training configuration.
Nothing here comes from the package under test.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

KEYPOINT_CONFIDENCE, LARGEST_BETA, MORE_THAN_KEYPOINTS, REPROJECTION_LOSS = 0.3, 3.0, 4, 31000
Sample = dict[str, Any]


def samples(path: Path) -> Iterator[Sample]:
    """Raw samples: key, and bytes by ending."""
    current: Sample = {}
    with tarfile.open(path, mode="r|") as archive:
        for member in archive:
            if not member.isreg() or (member.name.startswith("__") and member.name.endswith("__")):
                continue
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if current and current["__key__"] != key:
                yield current
                current = {}
            file = archive.extractfile(member)
            assert file is not None
            assert ending.lower() not in current, "webdataset refuses a doubled ending"
            current |= {"__key__": key, ending.lower(): file.read()}
    if current:
        yield current


def people(path: Path) -> Iterator[Sample]:
    """One record a person, before any filter."""
    for sample in samples(path):
        encoded = next(sample[e] for e in ("jpg", "jpeg", "png") if e in sample)
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        assert image is not None, "an image that cannot be decoded stops the training"
        masks = None
        if "detection.npz" in sample:
            masks = np.load(io.BytesIO(sample["detection.npz"]))["masks"]
        for data in pickle.loads(sample["data.pyd"]):
            mask = np.ones(image.shape[:2], bool)
            if masks is not None:
                mask = masks[data["extra_info"]["detection_npz_idx"]]
            yield {"key": sample["__key__"], "image": image, "mask": mask, "data": data}


def training_people(
    path: Path, probable: Callable[[np.ndarray], bool] = lambda pose: True
) -> Iterator[Sample]:
    """The people who reach the network.

    Args:
        path: A tar.
        probable: Whether a body pose (69,) is likely; the loaders ask a histogram of AMASS.
    """
    for record in people(path):
        data = record["data"]
        points = data["keypoints_2d"]
        confidence = np.where(points[:, 2] < KEYPOINT_CONFIDENCE, 0.0, points[:, 2])
        data["keypoints_2d"] = np.concatenate([points[:, :2], confidence[:, None]], axis=1)
        if data["has_betas"] and (np.abs(data["betas"]) > LARGEST_BETA).any():
            data["has_betas"] = False
        if data["has_body_pose"] and not probable(data["body_pose"][3:]):
            data["has_body_pose"] = False
        both = np.array(float((data["has_body_pose"] > 0) and (data["has_betas"] > 0)))
        data["has_betas"] = data["has_body_pose"] = both
        if not (data["keypoints_2d"][:, 2] > 0).sum() > MORE_THAN_KEYPOINTS:
            continue
        losses = data.get("extra_info", {}).get("fitting_loss", np.array({})).item()
        loss = losses.get("reprojection_loss", None)
        if loss is not None and not loss < REPROJECTION_LOSS:
            continue
        if not data["has_betas"] > 0:
            data["has_betas"], data["betas"] = np.array(1.0), data["betas"] * 0
        yield {**record, "sample": _network_input(record)}


def _network_input(record: Sample) -> Sample:
    """The fields as the crop and the losses take them."""
    data = record["data"]
    width, height = (data["scale"] * 200).tolist()
    assert max(width, height) >= 1
    pose = data["body_pose"]
    return {
        "keypoints_2d": data["keypoints_2d"].copy().astype(np.float32),
        "keypoints_3d": data["keypoints_3d"].copy().astype(np.float32),
        "box_center": (data["center"][0], data["center"][1]),
        "global_orient": pose[:3].reshape(1, 3),
        "body_pose": pose[3:].reshape(23, 3),
        "betas": data["betas"].copy(),
        "has_body_pose": data["has_body_pose"].copy(),
        "has_betas": data["has_betas"].copy(),
        "crop": record["image"][:, :, 0] * record["mask"],
    }


def label_file_people(path: Path) -> Iterator[Sample]:
    """What CameraHMR's training takes of each row; the translation is its visualiser's."""
    with np.load(path, allow_pickle=True) as file:
        data = {name: file[name] for name in file.files}
    transl = data.get("trans_cam", 0) + (data["cam_ext"][:, :3, 3] if "cam_ext" in data else 0)
    for n, name in enumerate(data["imgname"]):
        yield {
            "imgname": str(name),
            "center": data["center"][n],
            "box": data["scale"][n] * 200,
            "pose": data["pose_cam" if "pose_cam" in data else "pose"][n].reshape(-1)[:72].reshape(24, 3),
            "betas": data["shape"][n][:10],
            "cam_int": data["cam_int"][n],
            "keypoints_2d": data["gtkps"][n][:44],
            "transl": transl[n],
        }
