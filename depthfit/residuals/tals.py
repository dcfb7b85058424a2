"""Threshold-adaptive loss scaling (TALS): small 2D and pose errors count for little, gross ones in full.

A regressor that assumes a wrong camera cannot meet the true 2D points with the true body. Errors no larger
than what that camera causes are therefore scaled down (Dwivedi et al., "TokenHMR", CVPR 2024, equation 1).

Two variants, because the publication and its code differ:

* the *paper's*: a joint's L1 distance (or its joint angle) is the loss, and it is compared with a threshold
  that is the mean of the same error over a set of ground-truth bodies seen through the assumed camera
  (:func:`keypoint_thresholds`, :func:`pose_thresholds`);
* the *code's*: the loss is L1 too, but it is the *squared* distance, times the confidence, that is compared
  with a fixed table, as if the table had been made of squares; poses are compared by angle with 0.8 of a
  table, the root with an unscaled one, and the loss is the squared Frobenius norm.

All losses are differentiable almost everywhere; at a threshold they jump by the factor, as published.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthfit.joints import BODY25, KEYPOINTS

LOOSE_WEIGHT = 0.05
"""Factor on errors below the threshold, of the code."""
CODE_KEYPOINT_THRESHOLDS = (
    0.0085024, 0.00648666, 0.00747825, 0.01103439, 0.01355629, 0.00741691, 0.01096735, 0.01414461,
    0.00974212, 0.01127469, 0.01663222, 0.00564927, 0.01126335, 0.01615757, 0.00532595, 0.00829731,
    0.00831497, 0.00737241, 0.00743286, 0.00543739, 0.00550524, 0.00535504, 0.00565414, 0.00581685,
    0.00573041, 0.00554029, 0.01515258, 0.00986267, 0.00997563, 0.01519944, 0.00511402, 0.01288267,
    0.01105894, 0.00710525, 0.00709785, 0.01092387, 0.01388091, 0.00648326, 0.00766487, 0.00931454,
    0.00646622, 0.00677057, 0.00744011, 0.00752381,
)  # fmt: skip
"""For the 44 joints of TokenHMR (BODY_25, then 19 more), in squared sides of the crop."""
CODE_POSE_THRESHOLDS = (
    0.273709, 0.26481161, 0.1838198, 0.41490657, 0.37521194, 0.20793171, 0.24905021, 0.33887333, 0.14481062,
    0.35632194, 0.34944217, 0.30542146, 0.32835298, 0.33110567, 0.34813467, 0.36357761, 0.40062272,
    0.43493496, 0.4400709, 0.78017052, 0.7375746, 0.24927082, 0.24966981,
)  # fmt: skip
"""rad, for SMPL's joints 1..23, before the factor ``CODE_POSE_SCALE``."""
CODE_POSE_SCALE = 0.8
CODE_ROOT_THRESHOLD = 0.46
"""rad; not scaled."""
CODE_TRUSTED_CONFIDENCE = 0.5
_LSP_NECK, _LSP_HEAD_TOP = 37, 38
CODE_JOINT = {
    **{name: BODY25.index(name) for name in KEYPOINTS if name in BODY25},
    "upper_neck": _LSP_NECK,
    "head_top": _LSP_HEAD_TOP,
}
"""Which of TokenHMR's 44 joints each of our keypoints is."""
PAPER_KEYPOINT_THRESHOLDS = {
    name: value
    for names, value in (
        (("nose", "left_eye", "right_eye"), 0.053),
        (("left_ear", "right_ear"), 0.050),
        (("left_shoulder", "right_shoulder"), 0.046),
        (("left_elbow", "right_elbow"), 0.053),
        (("left_wrist", "right_wrist"), 0.063),
        (("left_hip", "right_hip"), 0.040),
        (("left_knee", "right_knee"), 0.048),
        (("left_ankle", "right_ankle"), 0.063),
        (("left_big_toe", "right_big_toe"), 0.071),
        (("left_small_toe", "right_small_toe"), 0.072),
        (("left_heel", "right_heel"), 0.067),
        (("neck",), 0.041),
        (("mid_hip",), 0.038),
        (("upper_neck",), 0.047),
        (("head_top",), 0.057),
    )
    for name in names
}
"""In sides of the crop, by the paper's rule (:func:`keypoint_thresholds`, as `depthfit bench camera` prints
them): the mean over 128 synthetic people of the calibration seeds 102 to 105, left and right together."""
FIT_THRESHOLDS = {
    "paper": (PAPER_KEYPOINT_THRESHOLDS, 1),
    # The code compares squares: its table's roots are distances. A detection counts as fully confident.
    "code": ({name: CODE_KEYPOINT_THRESHOLDS[joint] ** 0.5 for name, joint in CODE_JOINT.items()}, 2),
}
"""Thresholds of a fit's keypoints by name, in sides of the crop, and the norm of the error."""


def threshold_scaled(loss: Tensor, error: Tensor, threshold: Tensor, factor: float = LOOSE_WEIGHT) -> Tensor:
    """Equation 1: ``loss`` where ``error > threshold``, ``factor * loss`` elsewhere; shapes broadcast."""
    return torch.where(error > threshold, loss, factor * loss)


def l1_distance(predicted: Tensor, truth: Tensor) -> Tensor:
    """|dx| + |dy| (*batch, K) of points (*batch, K, 2), in their unit."""
    return (predicted - truth).abs().sum(-1)


def joint_angle(predicted: Tensor, truth: Tensor) -> Tensor:
    """Angle (*batch) rad in [0, pi] between rotations (*batch, 3, 3).

    Its gradient at equal rotations is zero, where the angle itself has none.
    """
    half = (predicted - truth).square().sum((-2, -1)) / 8  # sin^2 of half the angle
    inside = (half > 1e-12) & (half < 1 - 1e-7)
    sine = torch.where(inside, half, torch.full_like(half, 0.5)).sqrt()
    limit = torch.where(half < 0.5, 0.0, torch.pi).to(half)
    return torch.where(inside, 2 * torch.asin(sine), limit)


def keypoint_thresholds(projected: Tensor, truth: Tensor, visible: Tensor) -> Tensor:
    """The paper's rule: mean L1 distance (K,) between true 2D points and true bodies' projections.

    Args:
        projected: (N, K, 2) true 3D joints under the regressor's camera.
        truth: (N, K, 2) true 2D joints, in the same unit (TokenHMR: sides of the crop).
        visible: (N, K) bool; points that count.

    Raises:
        ValueError: A joint is never visible, so that it has no threshold.
    """
    return _masked_mean(l1_distance(projected, truth), visible)


def pose_thresholds(predicted: Tensor, truth: Tensor) -> Tensor:
    """The paper's rule for poses: mean angle (J,) rad between predicted and true rotations (N, J, 3, 3)."""
    angle = joint_angle(predicted, truth)
    return _masked_mean(angle, torch.ones_like(angle, dtype=torch.bool))


def _masked_mean(values: Tensor, known: Tensor) -> Tensor:
    count = known.sum(0)
    if (count == 0).any():
        missing = torch.nonzero(count == 0).flatten().tolist()
        raise ValueError(f"joints {missing} are never visible: they have no threshold")
    return torch.where(known, values, torch.zeros_like(values)).sum(0) / count


def paper_keypoint_loss(
    predicted: Tensor, truth: Tensor, confidence: Tensor, threshold: Tensor, factor: float = LOOSE_WEIGHT
) -> Tensor:
    """Equation 1 on keypoints, (*batch, K).

    Args:
        predicted, truth: (*batch, K, 2), in the unit of ``threshold``.
        confidence: (*batch, K), a weight on the loss; it does not take part in the comparison.
        threshold: (K,).
    """
    error = l1_distance(predicted, truth)
    return confidence * threshold_scaled(error, error, threshold, factor)


def paper_pose_loss(
    predicted: Tensor, truth: Tensor, threshold: Tensor, factor: float = LOOSE_WEIGHT
) -> Tensor:
    """Equation 1 on joint angles, (*batch, J) rad, of rotations (*batch, J, 3, 3); ``threshold`` (J,) rad."""
    angle = joint_angle(predicted, truth)
    return threshold_scaled(angle, angle, threshold, factor)


def code_strong_keypoints(predicted: Tensor, truth: Tensor, confidence: Tensor) -> Tensor:
    """(*batch, 44) bool: keypoints that the code takes in full. Points in sides of the crop."""
    table = predicted.new_tensor(CODE_KEYPOINT_THRESHOLDS)
    return confidence * (predicted - truth).square().sum(-1) > table


def code_keypoint_loss(
    predicted: Tensor, truth: Tensor, confidence: Tensor, factor: float = LOOSE_WEIGHT
) -> Tensor:
    """The code's loss on 44 keypoints (*batch, 44), before its sum.

    Args:
        predicted, truth: (*batch, 44, 2) in sides of the crop, so that the image is [-0.5, 0.5].
        confidence: (*batch, 44).
    """
    loss = confidence * l1_distance(predicted, truth)
    return torch.where(code_strong_keypoints(predicted, truth, confidence), loss, factor * loss)


def code_keypoint3d_confidence(
    confidence_3d: Tensor, confidence_2d: Tensor, strong: Tensor, trusted: Tensor
) -> Tensor:
    """Weights (*batch, 44) that the code puts on 3D joints: all of a trusted data set's, and elsewhere those
    whose 2D point is strong and confident. A weak joint has no 3D loss at all.

    Args:
        confidence_3d, confidence_2d: (*batch, 44); ``strong`` (*batch, 44) of :func:`code_strong_keypoints`.
        trusted: (*batch) bool: the sample has measured 3D (the code: Human3.6M and BEDLAM).
    """
    kept = trusted[..., None].to(confidence_2d) + confidence_2d * strong.to(confidence_2d)
    return confidence_3d * (kept > CODE_TRUSTED_CONFIDENCE).to(confidence_3d)


def code_pose_loss(
    predicted: Tensor,
    truth: Tensor,
    has_pose: Tensor,
    trusted: Tensor,
    factor: float = LOOSE_WEIGHT,
) -> Tensor:
    """The code's loss (*batch, J) on the 23 body joints or on the root alone, before its sum.

    Args:
        predicted, truth: (*batch, 23, 3, 3), or (*batch, 1, 3, 3) for the root.
        has_pose, trusted: (*batch) bool. A trusted sample counts in full, whether it has a pose or not.

    Raises:
        ValueError: Neither 23 joints nor one.
    """
    angle = joint_angle(predicted, truth)
    count = angle.shape[-1]
    if count == len(CODE_POSE_THRESHOLDS):
        threshold = angle.new_tensor(CODE_POSE_THRESHOLDS) * CODE_POSE_SCALE
    elif count == 1:
        threshold = angle.new_tensor([CODE_ROOT_THRESHOLD])
    else:
        raise ValueError(f"{count} rotations: the code has thresholds for 23 body joints and for the root")
    strong = ((angle > threshold) & has_pose[..., None]) | trusted[..., None]
    weak = ~strong & has_pose[..., None]
    squared = (predicted - truth).square().sum((-2, -1))
    return squared * (strong.to(squared) + factor * weak.to(squared))
