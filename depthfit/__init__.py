"""depthfit: refine single-image human meshes with keypoints, depth and the right camera, together."""

__version__ = "0.1.0"
