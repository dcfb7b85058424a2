"""What a report says about one person, in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PersonSummary:
    """One person's fit. A pair is (prediction, refined); ``None`` is what is not known.

    Attributes:
        name: Image and person, e.g. ``street_003 #2``.
        status: The fit's status word.
        accepted: False where the fit was refused and the pose is the prediction's.
        focal: px.
        focal_std_log: Posterior standard deviation of the refined log focal.
        distance: m, z of the pelvis.
        distance_std_log: Posterior standard deviation of the refined log distance.
        reprojection: px, mean distance of the keypoints from the detections.
        depth_residual: Mean absolute log residual of the depth pixels.
        mpjpe: mm, mean error of the joints, where ground truth is known.
    """

    name: str
    status: str
    accepted: bool
    focal: tuple[float, float]
    focal_std_log: float | None
    distance: tuple[float, float]
    distance_std_log: float | None
    reprojection: tuple[float, float] | None = None
    depth_residual: tuple[float, float] | None = None
    mpjpe: tuple[float, float] | None = None


def interval(value: float, std_log: float | None) -> float | None:
    """Half-width of the one-sigma interval of a positive ``value`` whose log has this deviation."""
    return None if std_log is None else value * std_log
