"""Fits to compare: the same engine under files of ``configs/``, the ones that users run too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import OmegaConf

from depthfit.errors import InputError
from depthfit.evidence.cameras import CameraPrior
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import KNOWN_FOCAL_SIGMA
from depthfit.fit.config import FitConfig
from depthfit.run.config import merge_file

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: What the row is called.
        configs: Files of ``configs/``, without their ending, merged in this order; none is the joint fit.
        knows_focal: It is given the true focal.
    """

    name: str
    configs: tuple[str, ...] = ()
    knows_focal: bool = False

    def settings(self, base: FitConfig) -> FitConfig:
        """``base`` with this row's settings.

        Raises:
            InputError: A file is not there (the package was installed without its repository) or wrong.
        """
        merged = OmegaConf.structured(base)
        for config in self.configs:
            merged = merge_file(merged, str(CONFIGS / f"{config}.yaml"))
        settings = OmegaConf.to_object(merged)
        assert isinstance(settings, FitConfig)
        return settings

    def evidence(self, evidence: ImageEvidence, true_focal: float) -> ImageEvidence:
        """The image's evidence, with the true focal if this row knows it."""
        if not self.knows_focal:
            return evidence
        return replace(
            evidence, camera=CameraPrior(true_focal, KNOWN_FOCAL_SIGMA, evidence.camera.center, "true")
        )


FITS: dict[str, Variant] = {
    "identity": Variant("prediction, placed by the scene's camera", ("identity",)),
    "smplify": Variant("SMPLify", ("smplify",)),
    "smplify_tals": Variant("SMPLify, TALS (paper)", ("smplify", "tals")),
    "smplify_tals_code": Variant("SMPLify, TALS (code)", ("smplify", "tals_code")),
    "default_focal": Variant("2D only, default focal", ("keypoints_default_focal",)),
    "default_focal_tals": Variant("2D, default focal, TALS (paper)", ("keypoints_default_focal", "tals")),
    "default_focal_tals_code": Variant(
        "2D, default focal, TALS (code)", ("keypoints_default_focal", "tals_code")
    ),
    "camsmplify": Variant("CamSMPLify-style, predicted focal", ("camsmplify",)),
    "free_focal": Variant("2D only, free focal", ("keypoints_free_focal",)),
    "depth_only": Variant("depth only", ("depth_only",)),
    "true_focal": Variant("2D only, true focal", ("keypoints_known_focal",), knows_focal=True),
    "joint": Variant("joint, with masks"),
    "no_masks": Variant("joint, without masks", ("no_masks",)),
    "depth_edges": Variant("joint, depth edge as contour", ("ablations/depth_edges",)),
    "joint_true_focal": Variant(
        "joint, with masks, true focal", ("ablations/focal_frozen",), knows_focal=True
    ),
    "tokens": Variant("joint, with masks, token space", ("ablations/tokens",)),
    "own_cameras": Variant("joint, a camera for each person", ("ablations/own_cameras",)),
    "no_depth_scale": Variant("joint, depth scale taken as true", ("ablations/no_depth_scale",)),
    "focal_frozen": Variant("joint, predicted focal held", ("ablations/focal_frozen",)),
    "no_depth": Variant("joint, with masks, depth left out", ("ablations/no_depth",)),
    "independent_pixels": Variant(
        "joint, with masks, depth pixels independent", ("ablations/independent_pixels",)
    ),
    "no_hypotheses": Variant("joint, no flips and no further starts", ("ablations/no_hypotheses",)),
    "no_verdict": Variant("joint, no verdict", ("ablations/no_verdict",)),
    "equal_sigmas": Variant("joint, all predictions equally good", ("ablations/equal_sigmas",)),
    "prior_none": Variant("joint, prior: prediction only", ("ablations/prior_none",)),
    "prior_tokens": Variant("joint, prior: tokens only", ("ablations/tokens", "ablations/prior_none")),
    "prior_limits": Variant("joint, prior: joint limits", ("ablations/prior_limits",)),
    "prior_gaussian": Variant("joint, prior: Gaussian of mocap", ("ablations/prior_gaussian",)),
    "prior_mixture": Variant("joint, prior: Gaussian mixture of mocap", ("ablations/prior_mixture",)),
    "joint_tals": Variant("joint, TALS (paper)", ("tals",)),
}
"""All fits that a table can have, by the name that ``fits=`` takes."""

TABLES: dict[str, tuple[str, ...]] = {
    "fits": (
        "default_focal", "true_focal", "no_masks", "depth_edges", "joint", "no_depth", "independent_pixels",
    ),
    "tokens": ("tokens", "joint"),
    "rivals": (
        "identity", "smplify", "default_focal", "camsmplify", "free_focal", "depth_only", "true_focal",
        "no_masks", "joint",
    ),
    "ablations": (
        "joint", "tokens", "own_cameras", "no_depth_scale", "focal_frozen", "no_masks", "depth_edges",
        "no_depth", "independent_pixels", "no_hypotheses", "no_verdict", "equal_sigmas", "joint_true_focal",
    ),
    "priors": (
        "joint", "prior_none", "prior_tokens", "prior_limits", "prior_gaussian", "prior_mixture",
    ),
    "tals": (
        "smplify", "smplify_tals", "smplify_tals_code", "default_focal", "default_focal_tals",
        "default_focal_tals_code", "joint", "joint_tals",
    ),
}  # fmt: skip
"""Rows of each table, in order."""


def variants(names: list[str] | tuple[str, ...]) -> dict[str, Variant]:
    """The fits of those names.

    Raises:
        InputError: One of them is unknown.
    """
    unknown = [name for name in names if name not in FITS]
    if unknown:
        raise InputError("command line", "fits", ", ".join(unknown), f"Known: {', '.join(FITS)}.")
    return {name: FITS[name] for name in names}
