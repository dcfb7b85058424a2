"""The fit: from people, keypoints, depth and outlines to refined bodies and cameras."""

from depthfit.fit.config import FitConfig
from depthfit.fit.fitter import Fitter
from depthfit.fit.inputs import ImageInput, OutlineInput, PersonInput
from depthfit.fit.result import BodyResult, PersonFit
from depthfit.fit.verdict import FitStatus

__all__ = [
    "BodyResult",
    "FitConfig",
    "FitStatus",
    "Fitter",
    "ImageInput",
    "OutlineInput",
    "PersonFit",
    "PersonInput",
]
