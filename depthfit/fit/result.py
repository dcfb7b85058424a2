"""What a fit returns for each person, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BodyResult:
    """A body with its camera, camera frame, metres, radians.

    Attributes:
        focal: px; center: (2,) px; transl: (3,) the pelvis; root: (3, 3); pose: (23, 3, 3); betas: (B,).
        joints: (24, 3); keypoints_3d: (K, 3); keypoints_2d: (K, 2) px.
    """

    focal: float
    center: np.ndarray
    transl: np.ndarray
    root: np.ndarray
    pose: np.ndarray
    betas: np.ndarray
    joints: np.ndarray
    keypoints_3d: np.ndarray
    keypoints_2d: np.ndarray


@dataclass(frozen=True)
class PersonFit:
    """One person's fit.

    Attributes:
        status: A :class:`depthfit.fit.verdict.FitStatus` value; accepted: Whether ``refined`` is the fit.
        initial: The prediction under its own camera.
        refined: The fit; where it was refused, the prediction's body under the best camera for it.
        tokens: (T,) int16 codes nearest to the fitted soft tokens, or those of the fitted pose where
            rotations were stepped; empty without a tokenizer.
        log_scale: Of the depth map.
        focal_std_log, distance_std_log: Posterior deviations; joints_std: (24,) m. Where the fit was refused,
            those of the prediction that is kept.
        reprojection: px median before (prediction under its own camera) and after.
        depth_residual: Median absolute log-depth residual before (best camera) and after.
        cost_before, cost_after: By term; before = the prediction under the best camera.
        iterations: Accepted steps.
    """

    status: str
    accepted: bool
    initial: BodyResult
    refined: BodyResult
    tokens: np.ndarray
    log_scale: float
    focal_std_log: float
    distance_std_log: float
    joints_std: np.ndarray
    reprojection: tuple[float, float]
    depth_residual: tuple[float, float]
    cost_before: dict[str, float]
    cost_after: dict[str, float]
    iterations: int
