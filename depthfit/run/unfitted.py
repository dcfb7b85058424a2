"""People who cannot be fitted: their prediction, placed where the image's camera puts it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from depthfit.body.model import Body
from depthfit.camera import image_center
from depthfit.evidence.cameras import CameraPrior
from depthfit.fit.adapter import Prediction
from depthfit.fit.config import FitConfig
from depthfit.fit.fitter import Fitter
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.fit.verdict import FitStatus
from depthfit.joints import NUM_JOINTS


def without_evidence(
    fitter: Fitter,
    prediction: Prediction,
    size: tuple[int, int],
    camera: CameraPrior,
    neighbours: Sequence[PersonFit],
) -> PersonFit:
    """The result of a person without keypoints.

    Args:
        size: (width, height) px of the image.
        camera: What was known of the image's camera before a fit.
        neighbours: Fits of the image's other people. Where people share a camera, theirs is this person's.
    """
    deviation, log_scale = camera.sigma_log_focal, 0.0
    if neighbours and fitter.config.camera.shared:
        camera = replace(camera, focal_px=neighbours[0].refined.focal)
        deviation = min(fit.focal_std_log for fit in neighbours)
        log_scale = neighbours[0].log_scale
    return PersonFit(
        status=FitStatus.NO_EVIDENCE.value,
        accepted=False,
        initial=fitter.describe(prediction, size),
        refined=placed(fitter, prediction, size, camera),
        tokens=np.zeros(0, np.int16),
        log_scale=log_scale,
        focal_std_log=deviation,
        distance_std_log=math.hypot(deviation, _log_height_deviation(fitter.body, prediction, fitter.config)),
        joints_std=np.full(NUM_JOINTS, np.nan, np.float32),
        reprojection=(np.nan, np.nan),
        depth_residual=(np.nan, np.nan),
        cost_before={},
        cost_after={},
        iterations=0,
    )


def placed(fitter: Fitter, prediction: Prediction, size: tuple[int, int], camera: CameraPrior) -> BodyResult:
    """The predicted body under another camera, the pelvis in the same pixel and the body as large there."""
    own_center, center = image_center(*size), torch.tensor(camera.center, dtype=torch.float32)
    ratio = camera.focal_px / prediction.focal
    pixel = prediction.focal * prediction.transl[:2] / prediction.transl[2] + own_center
    z = prediction.transl[2] * ratio
    transl = torch.cat([(pixel - center) * z / camera.focal_px, z[None]])
    moved = replace(prediction, transl=transl, focal=camera.focal_px)
    body = fitter.describe(moved, size)
    # Described about the image's middle, which need not be where this camera looks.
    shift = (center - own_center).numpy()
    return replace(body, center=center.numpy(), keypoints_2d=body.keypoints_2d + shift)


def _log_height_deviation(body: Body, prediction: Prediction, config: FitConfig) -> float:
    """Of the predicted shape's height, under the population's prior: a distance is no surer."""
    own = config.body.betas_sigma if prediction.betas_sigma is None else prediction.betas_sigma
    sigma = (1 + own**-2) ** -0.5
    height, slope = body.height()
    return sigma * float((slope / height).norm())
