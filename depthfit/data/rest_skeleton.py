"""A plain adult skeleton in SMPL's T-pose, for what needs proportions but no body model.

y up, facing +z, the person's left = +x, metres. Rounded from segment lengths as shares of a stature of
1.72 m (Winter, "Biomechanics and Motor Control of Human Movement", 4th ed., figure 4.1); legs and arms
lie along the directions that depthfit's own body has at rest.
"""

from __future__ import annotations

import numpy as np

from depthfit.joints import JOINT_INDEX, NUM_JOINTS, SMPL_PARENTS, mirror_name

_OFFSETS = {
    "left_hip": (0.070, -0.085, 0.000),
    "spine1": (0.000, 0.110, -0.025),
    "left_knee": (0.050, -0.410, 0.000),
    "spine2": (0.000, 0.135, 0.000),
    "left_ankle": (0.020, -0.410, -0.020),
    "spine3": (0.000, 0.055, 0.015),
    "left_foot": (0.035, -0.055, 0.130),
    "neck": (0.000, 0.210, -0.030),
    "left_collar": (0.075, 0.115, -0.025),
    "head": (0.000, 0.090, 0.030),
    "left_shoulder": (0.105, 0.040, -0.010),
    "left_elbow": (0.265, 0.000, 0.000),
    "left_wrist": (0.250, 0.000, 0.000),
    "left_hand": (0.085, 0.000, 0.000),
}


def _offsets() -> np.ndarray:
    out = np.zeros((NUM_JOINTS, 3))
    for name, (x, y, z) in _OFFSETS.items():
        out[JOINT_INDEX[name]] = (x, y, z)
        out[JOINT_INDEX[mirror_name(name)]] = (x if mirror_name(name) == name else -x, y, z)
    return out


REST_OFFSETS = _offsets()
"""(24, 3) m, joint relative to its parent."""


def rest_positions() -> np.ndarray:
    """(24, 3) m, the pelvis at the origin."""
    out = REST_OFFSETS.copy()
    for j, parent in enumerate(SMPL_PARENTS):
        if parent >= 0:
            out[j] += out[parent]
    return out
