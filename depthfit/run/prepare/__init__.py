"""From a folder of photographs to a scene folder: people, keypoints, depth, masks, predictions."""

from depthfit.run.prepare.config import PrepareConfig
from depthfit.run.prepare.pipeline import PrepareSummary, prepare_scene

__all__ = ["PrepareConfig", "PrepareSummary", "prepare_scene"]
