"""One person's row: how it ended, why, by which measures, and the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from depthfit import so3
from depthfit.fit.adapter import Prediction
from depthfit.fit.config import FitConfig
from depthfit.fit.inputs import ImageInput, PersonInput
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.joints import JOINT_INDEX, KEYPOINTS, NUM_BODY_JOINTS, NUM_JOINTS
from depthfit.pseudo.records import FAILED, Item

TEXT = ("key", "outcome", "reason", "status", "evidence", "focal_source")
FLAGS = ("accepted", "written")
WHOLE = ("person", "keypoints")
NUMBERS = (
    "reprojection", "initial_reprojection", "depth_residual", "initial_depth_residual", "joint_sd",
    "focal_sd", "distance_sd", "prior", "beta", "inside", "focal", "initial_focal", "width", "height",
)  # fmt: skip
ARRAYS: dict[str, tuple[int, ...]] = {
    "pose": (72,),
    "betas": (10,),
    "transl": (3,),
    "smpl_transl": (3,),
    "center": (2,),
    "initial_pose": (72,),
    "initial_betas": (10,),
    "initial_transl": (3,),
    "detected": (len(KEYPOINTS), 3),
}
"""Camera frame, rad, m, px. ``transl`` is the pelvis, ``smpl_transl`` what SMPL adds; ``detected`` are the
keypoints that were fitted, with their confidence."""
PERCENT = 100.0


def failed_row(item: Item, person: int, failure: str) -> dict[str, Any]:
    """The row of a person who could not be fitted."""
    row: dict[str, Any] = dict.fromkeys(TEXT, "") | dict.fromkeys(FLAGS, False)
    row |= dict.fromkeys(WHOLE, 0) | dict.fromkeys(NUMBERS, np.nan)
    row |= {name: np.full(shape, np.nan, np.float32) for name, shape in ARRAYS.items()}
    return row | {"key": item.key, "person": person, "outcome": FAILED, "reason": failure, "status": FAILED}


def fitted_row(
    item: Item,
    prediction: Prediction,
    given: tuple[ImageInput, PersonInput],
    fit: PersonFit,
    rest_pelvis: np.ndarray,
    config: FitConfig,
) -> dict[str, Any]:
    """The row of a fitted person; the gate adds ``outcome`` and ``reason``.

    Args:
        item: The image.
        prediction: The start.
        given: What the fit was given.
        fit: What it gave.
        rest_pelvis: (3,) m, the pelvis of the refined body's rest mesh, for SMPL's own translation.
        config: Of the fit.
    """
    assert item.evidence is not None
    assert prediction.detection is not None
    image, person = given
    found, size = prediction.detection, item.evidence.size
    return {
        "key": item.key,
        "person": prediction.person,
        "outcome": "",
        "reason": "",
        "written": False,
        "status": fit.status,
        "accepted": fit.accepted,
        "evidence": "+".join(_evidence(image, person, config)),
        "focal_source": item.evidence.camera.source,
        "keypoints": int(found.found.sum()),
        **_measures(person, fit, size),
        "width": size[0],
        "height": size[1],
        **_bodies(fit, rest_pelvis),
        "detected": np.concatenate([found.xy, found.confidence[:, None]], 1).astype(np.float32),
    }


def _measures(person: PersonInput, fit: PersonFit, image: tuple[int, int]) -> dict[str, float]:
    """What the gate looks at, in the units of its limits; ``image`` is (width, height) px."""
    size = float((person.box[2:] - person.box[:2]).max().clamp(min=1.0))
    pixels = fit.refined.keypoints_2d
    inside = ((pixels >= -0.5) & (pixels <= np.array(image) - 0.5)).all(-1)
    sd = fit.joints_std[[j for name, j in JOINT_INDEX.items() if name != "pelvis"]]
    return {
        "reprojection": PERCENT * fit.reprojection[1] / size,
        "initial_reprojection": PERCENT * fit.reprojection[0] / size,
        "depth_residual": PERCENT * fit.depth_residual[1],
        "initial_depth_residual": PERCENT * fit.depth_residual[0],
        "joint_sd": 1000 * float(np.sqrt(np.mean(np.square(sd)))),
        "focal_sd": PERCENT * fit.focal_std_log,
        "distance_sd": PERCENT * fit.distance_std_log,
        # As the verdict takes it: over the coordinates of the body joints.
        "prior": float(np.sqrt(2 * fit.cost_after["pose_prior"] / (3 * NUM_BODY_JOINTS))),
        "beta": float(np.abs(fit.refined.betas).max()),
        "inside": PERCENT * float(inside.mean()),
    }


def _bodies(fit: PersonFit, rest_pelvis: np.ndarray) -> dict[str, Any]:
    """The fit and the prediction, each with its camera."""
    refined, initial = fit.refined, fit.initial
    return {
        "focal": refined.focal,
        "initial_focal": initial.focal,
        "pose": axis_angle(refined),
        "betas": refined.betas,
        "transl": refined.transl,
        "smpl_transl": refined.transl - rest_pelvis,
        "center": refined.center,
        "initial_pose": axis_angle(initial),
        "initial_betas": initial.betas,
        "initial_transl": initial.transl,
    }


def is_finite(row: dict[str, Any]) -> bool:
    """Whether the refined body is all numbers."""
    return all(np.isfinite(row[name]).all() for name in ("pose", "betas", "transl", "focal"))


def axis_angle(body: BodyResult) -> np.ndarray:
    """(72,) rad, the root first."""
    turns = np.concatenate([body.root[None], body.pose])
    assert len(turns) == NUM_JOINTS
    return so3.log(torch.from_numpy(turns)).numpy().reshape(-1)


def evidence_used(config: FitConfig) -> Sequence[str]:
    """Kinds of evidence that the settings allow."""
    kinds = ["keypoints"] if config.keypoints.use else []
    kinds += ["depth"] if config.depth.use else []
    return kinds + ([f"contour ({config.contour.source})"] if config.contour.source != "none" else [])


def _evidence(image: ImageInput, person: PersonInput, config: FitConfig) -> list[str]:
    kinds = ["keypoints"] if config.keypoints.use else []
    # A depth map can be there for its edges alone.
    if config.depth.use and image.log_depth is not None:
        kinds.append("depth")
    if person.outline is not None:
        kinds.append("mask" if person.outline.closed else "depth_edge")
    return kinds
