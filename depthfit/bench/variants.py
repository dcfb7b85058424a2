"""Fits to compare: the same engine with some terms left out or swapped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from depthfit.camera import regressor_focal
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.config import FitConfig


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: What the row is called.
        change: The fit's settings, from the defaults.
        camera: ``default`` (the scene's evidence), ``regressor`` (5000/256 x the longer side, held) or
            ``true`` (the truth, held).
    """

    name: str
    change: Callable[[FitConfig], FitConfig]
    camera: str = "default"

    def evidence(self, evidence: ImageEvidence, true_focal: float) -> ImageEvidence:
        """The image's evidence with the camera that this row knows."""
        if self.camera == "default":
            return evidence
        focal = float(regressor_focal(*evidence.size)) if self.camera == "regressor" else true_focal
        prior = CameraPrior(focal, 0.01, evidence.camera.center, self.camera)
        return replace(evidence, camera=prior)


def _points_alone(config: FitConfig) -> FitConfig:
    return replace(
        config,
        depth=replace(config.depth, use=False),
        contour=replace(config.contour, source="none"),
        camera=replace(config.camera, freeze_focal=True),
        # The point of these rows is what such a fit does, not what a verdict would make of it.
        verdict=replace(config.verdict, use=False),
    )


def _contour(source: str) -> Callable[[FitConfig], FitConfig]:
    return lambda config: replace(config, contour=replace(config.contour, source=source))


def _no_depth(config: FitConfig) -> FitConfig:
    return replace(config, depth=replace(config.depth, use=False))


def _independent_pixels(config: FitConfig) -> FitConfig:
    return replace(config, depth=replace(config.depth, field_sigma=0.0))


def _space(space: str) -> Callable[[FitConfig], FitConfig]:
    return lambda config: replace(config, pose=replace(config.pose, space=space))


JOINT = Variant("joint, with masks", lambda config: config)
ACCURACY = (
    Variant("2D only, default focal", _points_alone, camera="regressor"),
    Variant("2D only, true focal", _points_alone, camera="true"),
    Variant("joint, without masks", _contour("none")),
    Variant("joint, depth edge as contour", _contour("depth")),
    JOINT,
    Variant("joint, with masks, depth left out", _no_depth),
    Variant("joint, with masks, depth pixels independent", _independent_pixels),
)
TOKENS = (
    Variant("joint, with masks, token space", _space("tokens")),
    Variant("joint, with masks, pose space", _space("rotations")),
)
"""Token space against plain joint rotations, all else the same."""
