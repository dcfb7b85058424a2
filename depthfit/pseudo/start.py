"""Where each person's fit starts: the source's label, a regressor's prediction, or the keypoints alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from baselines import InitContext, initialiser
from depthfit import so3
from depthfit.body.model import Body
from depthfit.body.points import LandmarkTable
from depthfit.camera import regressor_focal
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import Prediction
from depthfit.joints import NUM_JOINTS
from depthfit.pseudo.records import Item, Label, Subject

Start = Prediction | str
"""A start, or why there is none."""


def starts(item: Item, context: InitContext, table: LandmarkTable, init: str) -> list[Start]:
    """A start for each of the item's people, in order.

    Args:
        item: The image.
        context: Body (on the CPU), tokenizer and settings.
        table: Landmarks of that body.
        init: ``label`` or ``keypoints``.
    """
    if item.evidence is None:
        return [subject.failure or item.failure for subject in item.subjects]
    if item.evidence.predictions is not None and init == "label":
        found = initialiser("predictions")(item.evidence, context)
        return [p if p.detection is not None else "no_keypoints" for p in found]
    return [_start(item.evidence, subject, context, table, init) for subject in item.subjects]


def _start(
    evidence: ImageEvidence, subject: Subject, context: InitContext, table: LandmarkTable, init: str
) -> Start:
    if subject.failure:
        return subject.failure
    if subject.label is not None and init == "label":
        return from_label(evidence, subject, subject.label, context.body, table)
    if subject.keypoints is None:
        return "no_keypoints"
    labels = None if evidence.labels is None else np.where(evidence.labels == subject.person, 1, 0)
    alone = replace(
        evidence,
        people=(subject.keypoints,),
        labels=labels.astype(np.uint8) if labels is not None and labels.any() else None,
        predictions=None,
    )
    found = initialiser("keypoints")(alone, context)
    return replace(found[0], person=subject.person) if found else "few_keypoints"


def from_label(
    evidence: ImageEvidence, subject: Subject, label: Label, body: Body, table: LandmarkTable
) -> Prediction:
    """The source's body as a start. Without a camera of its own it gets the regressors', placed so that its
    keypoints have the size and the middle of the detected ones (weak perspective)."""
    turns = so3.exp(torch.from_numpy(label.pose).float().reshape(24, 3))
    betas = torch.from_numpy(label.betas).float()
    skeleton = body.skeleton(turns[None, 0], turns[None, 1:], betas[None])
    if label.smpl_transl is not None and label.focal is not None:
        transl = torch.from_numpy(label.smpl_transl).float() + skeleton.rest[0, 0]
        focal = label.focal
    else:
        points = table.positions(skeleton, turns[None, 1:], betas[None])[0, NUM_JOINTS:]
        focal = float(regressor_focal(*evidence.size))
        transl = _weak_perspective(points, subject, focal, evidence.camera.center)
    return Prediction(
        person=subject.person,
        row=-1,
        root=turns[0],
        pose=turns[1:],
        betas=betas,
        transl=transl,
        focal=focal,
        token_probabilities=None,
        detection=subject.keypoints,
    )


def _weak_perspective(
    points: torch.Tensor, subject: Subject, focal: float, center: tuple[float, float]
) -> torch.Tensor:
    person = subject.keypoints
    assert person is not None
    rays = torch.from_numpy((person.xy - np.array(center)) / focal).float()[torch.from_numpy(person.found)]
    flat = points[torch.from_numpy(person.found), :2]
    spread = (rays - rays.mean(0)).norm().clamp(min=1e-6)
    # One point alone has no size: a metre is then as good as any.
    size = (flat - flat.mean(0)).norm() if len(flat) > 1 else torch.tensor(1.0)
    z = (size / spread).clamp(0.1, 1e4)
    return torch.cat([rays.mean(0) * z - flat.mean(0), z[None]])
