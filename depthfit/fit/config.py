"""Settings of a fit. Every weight is 1 / sigma, and every sigma says its unit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from depthfit.errors import InputError, check_choice


@dataclass
class PoseConfig:
    """How the body pose is stepped, and its prior.

    Attributes:
        space: ``tokens``, or ``rotations``: plain joint rotations.
        sigma_rad: Spread of a predicted joint's error, median over the joints. It sets the size of the
            prior in both spaces: tokens take their shape from the regressor's token probabilities.
        distal_factor: In ``rotations``, how much wider elbows, wrists, knees, ankles and feet are.
        entropy_gain: In ``rotations``, by how much the log of a person's ``sigma_rad`` grows with a nat of
            their predicted tokens' mean entropy above the usual one (0.48: the error of simulated
            predictions grows so). Zero: all predictions are taken as equally good.
        usual_entropy: Nats, of predictions with the usual error; ``None`` takes that of the regressor where
            it is known (depthfit's simulated one). Where it is not, entropies tell nothing.
        token_gain: Inflation of the token prior for a ``sigma_rad`` of one, calibrated on synthetic
            predictions so that their errors have the spread that the prior pulls back to the joints.
        flat_gain: The same where a prediction has no token probabilities.
        floor: Share of the codebook's variance that every token direction keeps.
        root_sigma_rad: Spread of the predicted root orientation.
        population: A prior beside the prediction's: ``none``, ``gaussian`` or ``mixture`` (8 components),
            both of motion capture; ``auto`` is ``mixture`` for people whom a regressor predicted, and
            ``none`` for those of ``init=keypoints``, whom it would rule.
        population_play_rad: Added in quadrature to every direction's spread: play that the skeletons of
            motion capture, hinges for knees among them, do not have.
        population_robust_sigmas: Geman-McClure scale of the whole pose's distance in that prior (that of 63
            numbers at one sigma is 8): a pose unlike motion capture's is left alone. ``None``: not robust.
        limit_sigma_rad: How far joints may go beyond their ranges of motion, or ``None``: without limits.
    """

    space: str = "rotations"
    sigma_rad: float = 0.08
    distal_factor: float = 1.5
    entropy_gain: float = 0.48
    usual_entropy: float | None = None
    token_gain: float = 36.0
    flat_gain: float = 12.0
    floor: float = 0.1
    root_sigma_rad: float = 0.06
    population: str = "auto"
    population_play_rad: float = 0.1
    population_robust_sigmas: float | None = 30.0
    limit_sigma_rad: float | None = None


@dataclass
class KeypointConfig:
    """2D keypoints.

    Attributes:
        use: Take them as evidence.
        format: Point format of OpenPose-layout files: ``coco17``, ``body25`` or ``body25b``.
        min_confidence: Points below it are taken as missing: for points beyond the image a detector answers
            with a place in it.
        noise_factor: Detector error in units of the OKS sigma times the square root of the person's area.
        model_cm: Error of the body's own keypoints (where a detector sees an elbow), on the body.
        robust_sigmas: Geman-McClure scale.
        tals: Threshold-adaptive loss scaling: ``none``, ``paper`` (thresholds by the paper's rule) or
            ``code`` (the code's table). Points nearer than their threshold count 0.05.
    """

    use: bool = True
    format: str = "coco17"
    min_confidence: float = 0.1
    noise_factor: float = 0.35
    model_cm: float = 1.0
    robust_sigmas: float = 6.0
    tals: str = "none"


@dataclass
class DepthConfig:
    """The depth map.

    Attributes:
        use: Take it as evidence.
        samples: Pixels a person.
        pixel_sigma: Log-depth error of a pixel, beside the smooth field.
        surface_cm: How far the true surface departs from the body's beyond shape and clothes.
        field_sigma: Log-depth amplitude of the smooth error field over a person; zero takes the pixels as
            independent.
        field_order: Highest order of the field's cosines along each side of the person's box.
        scale_sigma: Log-scale error of the whole map.
        erode_px: Pixels dropped on either side of a depth jump, in px of the depth map.
        robust_sigmas: Geman-McClure scale.
    """

    use: bool = True
    samples: int = 500
    pixel_sigma: float = 0.015
    surface_cm: float = 0.7
    field_sigma: float = 0.015
    field_order: int = 5
    scale_sigma: float = 0.12
    erode_px: int = 3
    robust_sigmas: float = 2.0


@dataclass
class ContourConfig:
    """The person's outline.

    Attributes:
        source: ``auto`` (mask, else depth edge), ``mask``, ``depth`` or ``none``.
        points: Outline points a person, and rim points a person.
        pixel_sigma: px, error of the outline.
        surface_cm: Error of the outline on the body: clothes and hair beyond their mean.
        robust_sigmas: Geman-McClure scale.
    """

    source: str = "auto"
    points: int = 240
    pixel_sigma: float = 4.0
    surface_cm: float = 1.5
    robust_sigmas: float = 2.0


@dataclass
class BodyConfig:
    """Shape and clothes.

    Attributes:
        betas_sigma: Spread of the predicted betas about the truth; the population's is one.
        bone_sigma: Spread of a bone's length, as a share of it, beyond what the shape directions know. A
            nuisance of the fit: what comes out is a body of the model.
        clothes_cm: Mean stand-off of clothes.
        clothes_sigma_cm: Its spread between people.
        garment_sigma_cm: Spread over the parts of one body: garments, hair, and what ten shapes do not know.
        height_m: Known height of every person, or ``None``.
        height_sigma_m: Its error.
    """

    betas_sigma: float = 0.45
    bone_sigma: float = 0.03
    clothes_cm: float = 1.5
    clothes_sigma_cm: float = 0.8
    garment_sigma_cm: float = 0.8
    height_m: float | None = None
    height_sigma_m: float = 0.02


@dataclass
class CameraConfig:
    """The camera.

    Attributes:
        focal_px: Known focal of every image, or ``None``.
        sigma_log_focal: Its error; ``None`` takes that of the focal's source.
        freeze_focal: Hold the focal at its prior mean. An image whose focal nothing tells is an error.
        source: Where the focal is not given: ``evidence`` (cameras.json, EXIF, depth file, else a prior), or
            ``regressor``, 5000/256 of the image's longer side, as HMR2.0 and TokenHMR assume.
        shared: The people of an image share its camera; else each has a camera and a depth scale alone.
    """

    focal_px: float | None = None
    sigma_log_focal: float | None = None
    freeze_focal: bool = False
    source: str = "evidence"
    shared: bool = True


@dataclass
class SolverConfig:
    """The schedule.

    Attributes:
        grid: Side in cells of the window in which a person is rendered for association.
        rounds: Rounds of association and steps with all unknowns free, of each way that is tried.
        polish: Such rounds more from the best of what was tried; zero: none.
        steps: Steps a round.
        hypotheses: Also try a third schedule, keypoints first, for whom two leave unexplained, and limbs
            flipped front to back where the depth contradicts the prediction.
        kernels: On CUDA, Triton kernels and recorded rounds in place of plain torch.
    """

    grid: int = 128
    rounds: int = 5
    polish: int = 5
    steps: int = 2
    hypotheses: bool = True
    kernels: bool = True


@dataclass
class VerdictConfig:
    """When a fit is refused.

    Attributes:
        use: Refuse at all.
        min_keypoints: Detected points that a fit needs at the least.
        max_prior_rms: Root mean square of the pose prior's residual, in sigmas.
        max_reprojection: Median reprojection error as a share of the person's size in the image.
        max_depth_residual: Median absolute log-depth residual.
        max_focal_sigmas: Departure of the image's log focal from what is known of it, in sigmas of that. All
            people of the image share it.
    """

    use: bool = True
    min_keypoints: int = 6
    max_prior_rms: float = 3.0
    max_reprojection: float = 0.06
    max_depth_residual: float = 0.08
    max_focal_sigmas: float = 4.0


@dataclass
class FitConfig:
    """All settings of a fit."""

    pose: PoseConfig = field(default_factory=PoseConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    contour: ContourConfig = field(default_factory=ContourConfig)
    body: BodyConfig = field(default_factory=BodyConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)

    def validate(self) -> None:
        """Refuse what no fit can be made with.

        Raises:
            InputError: Names the setting.
        """
        for name, known in _CHOICES.items():
            check_choice("config", name, _value(self, name), known)
        for names, least, fix in _LEAST:
            for name in names:
                value = _value(self, name)
                if value is None:
                    continue
                enough = value > 0 if least is None else value >= least
                if not (enough and math.isfinite(value)):
                    raise InputError("config", name, str(value), fix)


_CHOICES = {
    "pose.space": ("rotations", "tokens"),
    "contour.source": ("auto", "mask", "depth", "none"),
}
_COUNTS = ("depth.samples", "contour.points", "solver.grid", "solver.rounds", "solver.steps")
_SIGMAS = (
    "pose.sigma_rad",
    "pose.distal_factor",
    "pose.token_gain",
    "pose.flat_gain",
    "pose.root_sigma_rad",
    "pose.population_robust_sigmas",
    "pose.limit_sigma_rad",
    "keypoints.noise_factor",
    "keypoints.robust_sigmas",
    "depth.pixel_sigma",
    "depth.scale_sigma",
    "depth.robust_sigmas",
    "contour.pixel_sigma",
    "contour.robust_sigmas",
    "body.betas_sigma",
    "body.clothes_sigma_cm",
    "body.garment_sigma_cm",
    "body.height_m",
    "body.height_sigma_m",
    "camera.focal_px",
    "camera.sigma_log_focal",
)
_AMOUNTS = (
    "pose.entropy_gain",
    "pose.usual_entropy",
    "pose.floor",
    "pose.population_play_rad",
    "keypoints.min_confidence",
    "keypoints.model_cm",
    "depth.surface_cm",
    "depth.field_sigma",
    "depth.field_order",
    "depth.erode_px",
    "contour.surface_cm",
    "body.bone_sigma",
    "body.clothes_cm",
    "solver.polish",
    "verdict.min_keypoints",
    "verdict.max_prior_rms",
    "verdict.max_reprojection",
    "verdict.max_depth_residual",
    "verdict.max_focal_sigmas",
)
_LEAST: tuple[tuple[tuple[str, ...], int | None, str], ...] = (
    (_COUNTS, 1, "Use at least 1."),
    (_SIGMAS, None, "Use a number above zero."),
    (_AMOUNTS, 0, "Use zero or more."),
)
"""Names of settings, the least value (``None``: above zero), and what to do."""


def _value(config: FitConfig, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)
