"""People as the training tars of 4D-Humans and TokenHMR label them."""

from __future__ import annotations

from typing import Any

import numpy as np

from depthfit.errors import InputError
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.joints import BODY25, KEYPOINTS
from depthfit.pseudo.records import Label, Subject

NUM_POINTS, NUM_POSE, NUM_BETAS = 44, 72, 10
MIN_CONFIDENCE = 0.3
"""The loaders of 4D-Humans and TokenHMR take points below for missing."""
_LSP = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "upper_neck", "head_top",
)  # fmt: skip
"""The first of the 19 points behind OpenPose's 25; the others have no counterpart here."""
_ROWS = [(i, KEYPOINTS.index(name)) for i, name in enumerate((*BODY25, *_LSP))]


def subject(number: int, entry: Any, source: str) -> Subject:
    """One person of a label list.

    Args:
        number: 1-based place in the list.
        entry: The person's dict.
        source: What to name in errors.
    """
    try:
        points = _array(entry, "keypoints_2d", (NUM_POINTS, 3), source)
        pose, betas = (
            _array(entry, k, s, source) for k, s in (("body_pose", (NUM_POSE,)), ("betas", (NUM_BETAS,)))
        )
        labelled = _flag(entry, "has_body_pose", source)
    except InputError as error:
        return Subject(number, None, None, f"label_unusable: {error.field}: {error.found}", finite=False)
    if not np.isfinite(points).all():
        return Subject(number, None, None, "evidence_not_finite: keypoints_2d", finite=False)
    if labelled and not (np.isfinite(pose).all() and np.isfinite(betas).all()):
        return Subject(number, None, None, "label_not_finite: body_pose or betas", finite=False)
    label = Label(pose, betas) if labelled else None
    person = keypoints_44(points)
    return Subject(number, person, label, "" if person else "no_keypoints")


def keypoints_44(points: np.ndarray) -> KeypointPerson | None:
    """Detected points from the 25 + 19 of 4D-Humans (44, 3) px and confidence; ``None`` without any.

    Where both halves have a point, OpenPose's is taken.
    """
    xy, confidence = np.zeros((len(KEYPOINTS), 2)), np.zeros(len(KEYPOINTS))
    for row, index in _ROWS:
        if points[row, 2] >= MIN_CONFIDENCE and confidence[index] == 0:
            xy[index], confidence[index] = points[row, :2], min(float(points[row, 2]), 1.0)
    return KeypointPerson(xy, confidence) if confidence.any() else None


def to_44(person: KeypointPerson) -> np.ndarray:
    """(44, 3) float32 of detected points; the reverse of :func:`keypoints_44`."""
    out = np.zeros((NUM_POINTS, 3), np.float32)
    for row, index in _ROWS:
        if person.confidence[index] > 0:
            out[row] = (*person.xy[index], person.confidence[index])
    return out


def refined_entry(entry: dict[str, Any], pose: np.ndarray, betas: np.ndarray) -> dict[str, Any]:
    """The dict of a person with a refined label.

    Pose, shape and their flags change, in the types that they had (whole numbers, as placeholders are at
    times, become float32). The loss of the old fit goes, as the
    loaders would judge the new label by it. All else stays, 3D keypoints among it: they are measurements
    where they count at all.

    Args:
        entry: The source's dict.
        pose: (72,) axis-angle rad; betas: (10,).
    """
    out = dict(entry)
    for name, value in (("body_pose", pose), ("betas", betas)):
        held = np.asarray(entry[name]).dtype
        out[name] = value.astype(held if held.kind == "f" else np.float32)
    for flag in ("has_body_pose", "has_betas"):
        kind = np.asarray(entry.get(flag, 0.0)).dtype
        # An array of no dimension: the loaders call .copy() on it.
        out[flag] = np.array(1, dtype=kind)
    extra = entry.get("extra_info")
    loss = extra.get("fitting_loss") if isinstance(extra, dict) else None
    if isinstance(extra, dict) and loss is not None:
        boxed_loss = np.asarray(loss, dtype=object)
        value = boxed_loss.item() if boxed_loss.ndim == 0 else {}
        losses = (
            {k: v for k, v in value.items() if k != "reprojection_loss"} if isinstance(value, dict) else {}
        )
        boxed = np.empty((), dtype=object)
        boxed[()] = losses
        out["extra_info"] = {**extra, "fitting_loss": boxed}
    return out


def _array(entry: Any, field: str, shape: tuple[int, ...], source: str) -> np.ndarray:
    value = entry.get(field) if isinstance(entry, dict) else None
    fix = f"The label needs an array of shape {shape}."
    if value is None:
        raise InputError(source, field, "missing", fix)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(source, field, f"no array ({error})", fix) from error
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise InputError(source, field, f"shape {array.shape}, dtype {array.dtype}", fix)
    return array.astype(np.float64)


def _flag(entry: Any, field: str, source: str) -> bool:
    fix = "The flag is one number."
    try:
        value = np.asarray(entry.get(field, 0))
    except ValueError as error:
        raise InputError(source, field, f"no number ({error})", fix) from error
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise InputError(source, field, f"shape {value.shape}, dtype {value.dtype}", fix)
    return bool(value.reshape(()) > 0)
