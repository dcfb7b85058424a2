"""What of a person's distance no fit can know: the size of the person against the scale of the depth map.

Make a person and everything around them k times as large, and k times as far away: keypoints, outline, focal
and the shape of the depth map stay as they are. Only two things tell k: how tall people with the predicted
shape are (log sd ``height``), and the depth map's own scale (log sd ``scale``). Put together, the log of the
distance keeps the deviation

    floor = (1 / height^2 + 1 / scale^2)^-1/2,

and half of all normal errors lie below 0.674 floor. The focal is taken as known: what is
not known of it comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from depthfit.body.model import Body

MEDIAN_OF_NORMAL = 0.6745
"""Median of the magnitude of a unit normal."""


def shape_mean(predicted: NDArray, betas_sigma: float) -> NDArray:
    """Predicted shapes (N, B) drawn to the population's mean: unit normals, which predictions miss by
    ``betas_sigma``."""
    own = 1 / betas_sigma**2
    return predicted * own / (1 + own)


def heights(body: Body, betas: NDArray) -> NDArray:
    """(N,) m of rest bodies with shapes ``betas`` (N, B)."""
    vertical = body.rest_vertices(torch.as_tensor(betas, dtype=body.v_template.dtype))[..., 1]
    return (vertical.amax(-1) - vertical.amin(-1)).double().numpy()


def height_error(
    body: Body, fits: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], betas_sigma: float
) -> float:
    """Root mean square error of the log of the height that predicted shapes tell, of matched rows."""
    expected = heights(body, shape_mean(fits["initial_betas"], betas_sigma))
    return float(np.sqrt(np.mean(np.log(expected / truth["height_m"]) ** 2)))


def distance_floor(height: float, scale: float) -> float:
    """Deviation of the log distance that ``height`` and ``scale`` (log sds) leave; zero if one is zero."""
    if min(height, scale) <= 0:
        return 0.0
    return float((1 / height**2 + 1 / scale**2) ** -0.5)
