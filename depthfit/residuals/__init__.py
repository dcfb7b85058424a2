"""Whitened residuals: each term is a function of the state and the evidence, one noun a file."""

from depthfit.residuals.contour import ContourMatches, contour_rows
from depthfit.residuals.depth import DepthSamples, depth_rows
from depthfit.residuals.keypoints import KeypointTargets, keypoint_rows
from depthfit.residuals.rows import Rows

__all__ = [
    "ContourMatches",
    "DepthSamples",
    "KeypointTargets",
    "Rows",
    "contour_rows",
    "depth_rows",
    "keypoint_rows",
]
