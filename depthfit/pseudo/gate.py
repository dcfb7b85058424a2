"""Which refined labels are believed. Every limit has a unit, and every refusal a reason that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depthfit.pseudo.config import GateConfig, PolicyConfig
from depthfit.pseudo.records import DROPPED, ORIGINAL, REFINED


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        setting: Name in ``GateConfig``.
        column: Of the person's row.
        unit: Of both.
        meaning: What is measured.
        least: The limit is a least value, not a largest.
    """

    setting: str
    column: str
    unit: str
    meaning: str
    least: bool = False


LIMITS = (
    Limit("max_reprojection", "reprojection", "% of the person's size", "median reprojection error"),
    Limit("max_depth_residual", "depth_residual", "% of the distance", "median depth residual"),
    Limit("max_joint_sd", "joint_sd", "mm", "posterior sd of the joints"),
    Limit("max_focal_sd", "focal_sd", "%", "posterior sd of the focal"),
    Limit("max_prior", "prior", "sigmas", "distance to the start"),
    Limit("max_beta", "beta", "", "largest shape coefficient"),
    Limit("min_keypoints", "keypoints", "", "detected keypoints", least=True),
    Limit("min_inside", "inside", "% of the keypoints", "fitted keypoints inside the image", least=True),
)


def doubts(row: Mapping[str, Any], config: GateConfig) -> list[str]:
    """What speaks against a fit, one reason a limit; none = believed.

    A value that is not finite is not below any limit; what was not measured (no depth map) is zero.
    """
    if not config.use:
        return []
    reasons = []
    for limit in LIMITS:
        bound = getattr(config, limit.setting)
        value = float(row[limit.column])
        if bound is None or (value >= bound if limit.least else value <= bound):
            continue
        unit, sign = f" {limit.unit}" if limit.unit else "", "<" if limit.least else ">"
        reasons.append(f"{limit.column}: {value:.3g} {sign} {bound:g}{unit}")
    return reasons


def decide(row: Mapping[str, Any], gate: GateConfig, policy: PolicyConfig) -> tuple[str, list[str]]:
    """(outcome, reasons) of a person who was fitted.

    Args:
        row: With ``accepted``, ``status`` and the columns of ``LIMITS``.
        gate: The limits.
        policy: What becomes of those beyond.
    """
    if not row["accepted"]:
        # The verdict's own measures tell more than one word.
        return _kept(policy.refused), [f"verdict: {row['status']}", *doubts(row, gate)]
    reasons = doubts(row, gate)
    return (_kept(policy.doubtful), reasons) if reasons else (REFINED, [])


def _kept(policy: str) -> str:
    return ORIGINAL if policy == "original" else DROPPED
