"""A regressor's predictions, as ``predictions.npz`` holds them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from baselines.context import InitContext
from baselines.hmr2 import HMR2
from baselines.tokenhmr import TOKENHMR
from depthfit.body.load import is_smpl
from depthfit.body.model import Body
from depthfit.camera import full_image_translation, intrinsics, project, regressor_focal
from depthfit.errors import InputError
from depthfit.evidence.match import match_people
from depthfit.evidence.predictions import SIMULATED
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import Prediction
from depthfit.joints import NUM_JOINTS

OF_SMPL = {release.name: release.title for release in (TOKENHMR, HMR2)}
"""Regressors whose betas are SMPL's, by the mark that they leave in predictions.npz."""
SMPL_PELVIS = (-0.002, -0.223, 0.028)
"""m: where the pelvis of SMPL's neutral mean body rests in the mesh that those regressors move."""
USUAL_ENTROPY = {SIMULATED: 1.04}
"""Nats, mean entropy of the token probabilities of predictions with the usual error (median of 160 people),
for regressors of whom it is known."""


def foreign_betas(regressor: str | None, body: Body) -> str | None:
    """Why the betas of predictions mean nothing to ``body``, or ``None`` if they are its own.

    Args:
        regressor: The mark of the predictions. Without one, betas are those of the body that is fitted.
        body: What is fitted.
    """
    if regressor not in OF_SMPL or is_smpl(body):
        return None
    return (
        f"the betas of {OF_SMPL[regressor]}'s predictions are SMPL's, and not used: {body.name} has other "
        "shapes. Fits start from its mean shape, and initial_* is the prediction with that. To use the "
        "predicted shape, give SMPL's files: models.body=FOLDER"
    )


def from_predictions(evidence: ImageEvidence, context: InitContext) -> list[Prediction]:
    """The image's rows of predictions.npz, each with the detected person that overlaps it.

    Where :func:`foreign_betas` says so, people get the mean shape in place of the predicted one.

    Raises:
        InputError: The scene has no predictions.npz.
    """
    rows = evidence.predictions
    if rows is None:
        raise InputError(
            evidence.path.parent.parent,
            "predictions.npz",
            "not there",
            "Write one (see the README), or start from the keypoints: init=keypoints.",
        )
    if len(rows) == 0:
        return []
    root, pose = torch.from_numpy(rows.root).float(), torch.from_numpy(rows.pose).float()
    betas, betas_sigma = torch.from_numpy(rows.betas).float(), None
    foreign = foreign_betas(rows.regressor, context.body) is not None
    if foreign:
        betas, betas_sigma = torch.zeros_like(betas), math.inf
    size = torch.tensor(evidence.size, dtype=torch.float32)
    focal = regressor_focal(*evidence.size)
    shift = full_image_translation(
        torch.from_numpy(rows.pred_cam).float(),
        torch.from_numpy(rows.box_center).float(),
        torch.from_numpy(rows.box_size).float(),
        size.expand(len(rows), 2),
        focal.expand(len(rows)),
    )
    body = context.body.to("cpu")
    skeleton = body.skeleton(root, pose, betas)
    # Regressors move SMPL's mesh, whose pelvis stands at its rest position; depthfit moves the pelvis.
    transl = shift + (shift.new_tensor(SMPL_PELVIS) if foreign else skeleton.rest[:, 0])
    points = context.table.positions(skeleton, pose, betas)[:, NUM_JOINTS:] + transl[:, None]
    camera = intrinsics(focal, (size - 1) / 2).expand(len(rows), 3, 3)
    xy = project(points, camera)
    matching = match_people(evidence.people, rows.box_center, rows.box_size, xy.double().numpy())
    probabilities = [_probabilities(rows.token_probs, n) for n in range(len(rows))]
    return [
        Prediction(
            person=int(rows.person[n]),
            row=int(evidence.rows[n]),
            root=root[n],
            pose=pose[n],
            betas=betas[n],
            transl=transl[n],
            focal=float(focal),
            token_probabilities=told,
            detection=evidence.people[matching.detection[n]] if matching.detection[n] >= 0 else None,
            betas_sigma=betas_sigma,
            token_entropy=None if told is None else float(torch.special.entr(told).sum(-1).mean()),
            usual_entropy=USUAL_ENTROPY.get(rows.regressor or ""),
        )
        for n, told in enumerate(probabilities)
    ]


def _probabilities(values: object, n: int) -> Tensor | None:
    if values is None:
        return None
    assert isinstance(values, np.ndarray)
    return torch.from_numpy(values[n].astype(np.float32))
