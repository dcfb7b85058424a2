"""The error columns of a table of people: each side posed, brought to the protocol's joints, compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from depthfit.errors import InputError
from depthfit.evaluation import metrics
from depthfit.evaluation import pck as keypoint_metrics
from depthfit.evaluation.image_metrics import silhouette_ious
from depthfit.evaluation.people import (
    PARAMETERS,
    BodySet,
    PosedPeople,
    check_topology,
    posed,
    stored,
)
from depthfit.evaluation.protocol import SMPL24, Protocol, origin, protocol_points

Table = Mapping[str, np.ndarray]
Columns = dict[str, np.ndarray]
CHUNK = 128
"""People posed at a time: 0.1 GiB of vertices."""
VISIBLE = 0.5
"""Labelled keypoints count above this confidence, as HMR2.0 has it."""
MM_PER_M = 1000.0
PREFIXES = ("", "initial_")
"""Of the columns of the fit and of the prediction."""


@dataclass(frozen=True)
class Scoring:
    """How saved results are scored.

    Attributes:
        protocol: Which joints, and their origin.
        bodies: Pose both sides again from their parameters, the truth with its own gender unless its meshes
            are stored; ``None`` takes joints and vertices as they are stored.
        regressor: (R, V) of a protocol that needs one.
        matching: ``person`` (numbers) or ``overlap`` (keypoints in the image).
        masks: Image name -> (H, W) true labels, k = person k of the truth, or ``None`` where there are none;
            ``None`` leaves the IoU out.
        own_masks: The same of the masks that the fit was given, k = person k of the fit: how well it meets
            its evidence, which is no error.
        iou_side: px, longer side of the picture in which silhouettes are compared.
    """

    protocol: Protocol = SMPL24
    bodies: BodySet | None = None
    regressor: NDArray | None = None
    matching: str = "person"
    masks: Callable[[str], NDArray | None] | None = None
    own_masks: Callable[[str], NDArray | None] | None = None
    iou_side: int = 320


def side(table: Table, rows: NDArray, prefix: str, scoring: Scoring, truth: bool) -> PosedPeople:
    """People of a table, posed as the scoring says. A true mesh that is stored is never posed again: it may
    have what no parameters say, as that of a scanned or synthetic person."""
    lacking = any(prefix + name not in table for name in PARAMETERS)
    if scoring.bodies is None or lacking or (truth and "vertices" in table):
        return stored(table, rows, prefix)
    return posed(table, rows, scoring.bodies, prefix, truth)


def body_errors(source: str | Path, fits: Table, truth: Table, scoring: Scoring) -> Columns:
    """Columns of joints, mesh and place of N matched rows, of the fit and (``initial_``) the prediction.

    A few people at a time, each true body posed once.
    """
    count = len(fits["imgname"])
    parts = []
    for first in range(0, count, CHUNK):
        rows = np.arange(first, min(first + CHUNK, count))
        theirs = side(truth, rows, "", scoring, True)
        labels = truth["label_joints"][rows] if "label_joints" in truth else None
        true_points = _points(theirs, scoring, labels)
        part: Columns = {}
        for prefix in PREFIXES:
            ours = side(fits, rows, prefix, scoring, False)
            check_topology(source, ours, theirs)
            found = _compare(ours, theirs, _points(ours, scoring), true_points, scoring.protocol)
            part.update({prefix + name: values for name, values in found.items()})
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _points(people: PosedPeople, scoring: Scoring, labels: NDArray | None = None) -> NDArray[np.float64]:
    neutral = None if scoring.bodies is None else scoring.bodies.get()
    return protocol_points(scoring.protocol, people, scoring.regressor, neutral, labels)


def _compare(ours: PosedPeople, theirs: PosedPeople, a: NDArray, b: NDArray, wanted: Protocol) -> Columns:
    """Columns of one side, whose candidate joints are ``a`` (N, R, 3) against the true ``b``."""
    root_a, root_b = origin(wanted, a), origin(wanted, b)
    chosen = list(wanted.joints)
    joints, true_joints = (a - root_a[:, None])[:, chosen], (b - root_b[:, None])[:, chosen]
    placed, truly_placed = a[:, chosen] + ours.pelvis[:, None], b[:, chosen] + theirs.pelvis[:, None]
    columns = {
        "mpjpe_mm": metrics.mean_distance(joints, true_joints),
        "pa_mpjpe_mm": known_only(metrics.pa_mpjpe, joints, true_joints),
        "mve_mm": np.full(len(a), np.nan),
        "pa_mve_mm": np.full(len(a), np.nan),
        "camera_mpjpe_mm": metrics.mean_distance(placed, truly_placed),
        "pelvis_mm": metrics.pelvis_error(ours.pelvis, theirs.pelvis),
        "distance_mm": np.abs(ours.pelvis[:, 2] - theirs.pelvis[:, 2]) * MM_PER_M,
        "distance_log": metrics.log_error(ours.pelvis[:, 2], theirs.pelvis[:, 2]),
        "distance_percent": metrics.percent_error(ours.pelvis[:, 2], theirs.pelvis[:, 2]),
    }
    if ours.vertices is not None and theirs.vertices is not None:
        columns["mve_mm"] = metrics.vertex_error(ours.vertices, root_a, theirs.vertices, root_b)
        by = (ours.joints, theirs.joints) if wanted.vertices_by_joints else ()
        columns["pa_mve_mm"] = known_only(metrics.pa_vertex_error, ours.vertices, theirs.vertices, *by)
    return columns


def camera_errors(fits: Table, truth: Table, prefix: str) -> Columns:
    """Columns of the focal length; NaN where the true one is not known."""
    focal, true_focal = fits[prefix + "focal"], truth["focal"]
    return {
        "focal_log": metrics.log_error(focal, true_focal),
        "focal_percent": metrics.percent_error(focal, true_focal),
    }


def image_points(truth: Table) -> tuple[NDArray, NDArray]:
    """True 2D keypoints (N, K, 2) px and which of them count (N, K): labelled ones, else projected ones."""
    if "keypoints_2d" in truth:
        return truth["keypoints_2d"], truth["keypoints_visible"] > VISIBLE
    points = truth["keypoints_3d"] @ truth["K"].transpose(0, 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        xy = points[..., :2] / points[..., 2:]
    return xy, np.isfinite(xy).all(-1) & (points[..., 2] > 0)


def keypoint_errors(fits: Table, truth: Table, prefix: str) -> Columns:
    """Columns of the keypoints in the image; NaN where a side has none.

    In a whole table ``PCK`` are each person's shares.
    """
    count = len(fits["imgname"])
    out = {name: np.full(count, np.nan) for name in ("reprojection", *keypoint_metrics.PCK)}
    if prefix + "keypoints_2d" not in fits:
        return out
    predicted, xy, visible, names = shared_keypoints(fits, truth, prefix)
    some = visible.any(1)
    gap = np.linalg.norm(np.where(visible[..., None], predicted - xy, 0), axis=-1).sum(1)
    around = keypoint_metrics.person_size(xy, visible, names, "box")
    with np.errstate(invalid="ignore", divide="ignore"):
        out["reprojection"] = np.where(some, gap / visible.sum(1) / around, np.nan)
    for name, (measure, threshold) in keypoint_metrics.PCK.items():
        size = keypoint_metrics.person_size(xy, visible, names, measure, truth.get("box_size"))
        out[name] = keypoint_metrics.pck(predicted, xy, visible, size, threshold)
    return out


def pooled_pck(fits: Table, truth: Table, prefix: str) -> dict[str, float]:
    """HMR2.0's averages: each keypoint's share over all people, then the mean over keypoints."""
    if prefix + "keypoints_2d" not in fits:
        return {}
    predicted, xy, visible, names = shared_keypoints(fits, truth, prefix)
    out = {}
    for name, (measure, threshold) in keypoint_metrics.PCK.items():
        size = keypoint_metrics.person_size(xy, visible, names, measure, truth.get("box_size"))
        known = visible & np.isfinite(size)[:, None]
        correct = keypoint_metrics.correct_keypoints(predicted, xy, size, threshold)
        out[name] = keypoint_metrics.mean_over_keypoints(correct, known)
    return out


def shared_keypoints(fits: Table, truth: Table, prefix: str) -> tuple[NDArray, NDArray, NDArray, list[str]]:
    """Predicted and true 2D keypoints (N, K, 2) px, visible (N, K), and names of those that both know."""
    ours, theirs = [str(n) for n in fits["keypoint_names"]], [str(n) for n in truth["keypoint_names"]]
    names = [name for name in ours if name in theirs]
    xy, visible = image_points(truth)
    chosen = [theirs.index(name) for name in names]
    predicted = fits[prefix + "keypoints_2d"][:, [ours.index(name) for name in names]]
    return predicted, xy[:, chosen], visible[:, chosen], names


def mask_errors(fits: Table, truth: Table, scoring: Scoring, prefix: str) -> Columns:
    """Columns of the silhouettes; NaN where there is no mask, or the prediction's meshes are not stored.

    Raises:
        InputError: There are true masks of nobody, or masks and no meshes.
    """
    out = {}
    for name, table, masks in (("iou", truth, scoring.masks), ("own_iou", fits, scoring.own_masks)):
        out[name] = np.full(len(fits["imgname"]), np.nan)
        if masks is not None:
            out[name] = _silhouettes(fits, table["person"], masks, scoring, prefix)
    if scoring.masks is not None and prefix == "" and not np.isfinite(out["iou"]).any():
        fix = "Name them as the images, people by their numbers in the ground truth."
        raise InputError("command line", "masks", "no true mask of anybody here", fix)
    return out


def _silhouettes(
    fits: Table,
    numbers: NDArray,
    masks: Callable[[str], NDArray | None],
    scoring: Scoring,
    prefix: str,
) -> NDArray[np.float64]:
    """(N,) IoU of the people's silhouettes with their numbers (N,) in the masks."""
    out = np.full(len(numbers), np.nan)
    if scoring.bodies is None and not {"faces", "vertices"} <= set(fits):
        fix = "Name the body that draws them, or fit with output.vertices=true."
        raise InputError("command line", "body", "not given, and the fit has no meshes for masks", fix)
    faces = fits["faces"] if scoring.bodies is None else scoring.bodies.get().faces.numpy()
    names = fits["imgname"].astype(str)
    for name in np.unique(names):
        labels, rows = masks(name), np.flatnonzero(names == name)
        people = side(fits, rows, prefix, scoring, False)
        if labels is None or people.vertices is None:
            continue
        vertices = torch.from_numpy(np.asarray(people.vertices + people.pelvis[:, None], np.float32))
        K = torch.from_numpy(np.asarray(fits[prefix + "K"][rows], np.float32))
        labelled = [int(n) for n in numbers[rows]]
        out[rows] = silhouette_ious(
            vertices, torch.from_numpy(np.asarray(faces, np.int64)), K, labels, labelled, scoring.iou_side
        )
    return out


def known_only(measure: Callable[..., NDArray], *points: NDArray) -> NDArray:
    """``measure`` of the rows that are finite in all ``points`` (N, P, 3); NaN for the others."""
    known = np.logical_and.reduce([np.isfinite(p).all((1, 2)) for p in points])
    out = np.full(len(known), np.nan)
    if known.any():
        out[known] = measure(*(p[known] for p in points))
    return out
