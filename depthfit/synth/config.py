"""Settings of synthetic scenes. Every noise level is a parameter; zero turns that noise off."""

from __future__ import annotations

from dataclasses import dataclass, field

from depthfit.errors import InputError
from depthfit.joints import KEYPOINT_FORMATS


@dataclass
class PredictionNoise:
    """Errors of the simulated regressor.

    The defaults give the level published for TokenHMR on hard footage (EMDB: MPJPE 90, PA 56 mm).

    Attributes:
        pose_rad: Sd of each component of a torso joint's rotation error. Limb joints have 1.25 (hips,
            shoulders) to 2 times as much (wrists, ankles, feet).
        root_rad: Sd of each component of the root's rotation error.
        view_bias: Share of the turn from the line of sight to the optical axis by which the root is off. A
            regressor sees a crop, in which a person beside the axis looks as if on it.
        betas: Sd of the error of each shape coefficient.
        spread: Sd of the log of a person's and of a joint's share of that noise: some people and joints
            are predicted much better than others. Token probabilities follow the sum.
        flipped: Share of people with one limb flipped front to back, which a picture hardly tells.
        scale: Sd of the log of the crop camera's scale, about its best value.
        shift: Sd of the predicted position in the image, in person sizes.
        box: Sd of the detector box's centre and log size, in person sizes.
        token_spread: Width of the token probabilities at a joint of average error, in units of the distance
            between a latent and its nearest code.
    """

    pose_rad: float = 0.08
    root_rad: float = 0.05
    view_bias: float = 0.35
    betas: float = 0.6
    spread: float = 0.25
    flipped: float = 0.05
    scale: float = 0.02
    shift: float = 0.01
    box: float = 0.03
    token_spread: float = 0.5


@dataclass
class NoiseConfig:
    """Errors of the evidence.

    Attributes:
        keypoint_factor: Sd of a detected point, in units of OKS sigma x sqrt(person area).
        keypoint_outliers: Share of points that are grossly wrong: half of them moved, half swapped with
            their left-right partner.
        focal_log: Sd of the log of the depth estimator's focal length. A tenth of all images draw from a
            tail twice as wide; the sd is that of the mixture.
        depth_log_scale: Sd of the log of the depth map's scale, with the same tail.
        depth_warp: Sd of a smooth random field of log depth; half its variance is image-wide, half has the
            size of a limb.
        depth_pixel: Sd of independent noise of log depth a pixel.
        depth_boundary_px: Half-width of the band in which depth edges are smeared.
        mask_px: Sd of the mask's outline.
        mask_bites: Share of masks with a piece missing at the outline.
        prediction: Of the regressor.
    """

    keypoint_factor: float = 0.35
    keypoint_outliers: float = 0.03
    focal_log: float = 0.22
    depth_log_scale: float = 0.10
    depth_warp: float = 0.03
    depth_pixel: float = 0.01
    depth_boundary_px: float = 2.5
    mask_px: float = 1.5
    mask_bites: float = 0.1
    prediction: PredictionNoise = field(default_factory=PredictionNoise)


@dataclass
class SynthConfig:
    """What to make.

    Attributes:
        seed: The same seed and settings give the same bytes.
        images: Number of images.
        first: Number of the first one: parts of one scene can be made apart.
        people_weights: Relative frequency of images with 1, 2, ... people.
        pose_mix: Relative frequency of poses from everyday motion, from acrobatics and the like, and
            drawn at random within the joints' limits.
        width, height: Of the images, px.
        fov_degrees: Range of the horizontal field of view.
        distance_m: Range of the pelvis' depth. Nearer than a person fits the frame is not drawn.
        pitch_degrees: Range of the camera's pitch, positive looking down.
        roll_degrees: Sd of the camera's roll.
        clothes_cm: Range over people of how far the thickest clothes or hair stand off the body.
        extra_shape: Sd of shape coefficients that the fitted model does not have.
        demanding: Draw only poses that are upside down, twisted, or have a limb stretched towards the camera,
            a third each.
        in_frame: Range of the share of a person's joints that is inside the image.
        place_x, place_y: Ranges of the pelvis in the image, in widths and heights.
        min_visible: Least share of a person's silhouette that others leave visible.
        tokenizer: Name or path of the pose tokenizer.
        token_probs: Pass predictions through the tokenizer, as TokenHMR does, and save the token
            probabilities (0.65 MB a person). Otherwise predictions are as HMR2.0's.
        keypoint_format: Point format of the keypoint files.
        vertices: Save the true meshes (0.16 MB a person).
        noise: Levels of noise.
    """

    seed: int = 0
    images: int = 24
    first: int = 0
    people_weights: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    pose_mix: tuple[float, float, float] = (0.4, 0.4, 0.2)
    width: int = 1280
    height: int = 960
    fov_degrees: tuple[float, float] = (30.0, 80.0)
    distance_m: tuple[float, float] = (1.2, 8.0)
    pitch_degrees: tuple[float, float] = (-10.0, 30.0)
    roll_degrees: float = 2.0
    clothes_cm: tuple[float, float] = (0.0, 4.0)
    extra_shape: float = 1.0
    demanding: bool = False
    in_frame: tuple[float, float] = (0.9, 1.0)
    place_x: tuple[float, float] = (0.15, 0.85)
    place_y: tuple[float, float] = (0.3, 0.7)
    min_visible: float = 0.5
    tokenizer: str = "open"
    token_probs: bool = True
    keypoint_format: str = "coco17"
    vertices: bool = True
    noise: NoiseConfig = field(default_factory=NoiseConfig)

    def validate(self) -> None:
        """Refuse settings that cannot be used.

        Raises:
            InputError: Names the setting.
        """
        if self.images < 1:
            raise _wrong("images", self.images, "ask for at least one image")
        if min(self.width, self.height) < 64:
            raise _wrong("width, height", (self.width, self.height), "use at least 64 px")
        if self.keypoint_format not in KEYPOINT_FORMATS:
            raise _wrong("keypoint_format", self.keypoint_format, f"use one of {', '.join(KEYPOINT_FORMATS)}")
        for name in ("people_weights", "pose_mix"):
            weights = getattr(self, name)
            if not weights or min(weights) < 0 or sum(weights) <= 0:
                raise _wrong(name, weights, "give weights >= 0, at least one of them above zero")
        ranges = (
            ("fov_degrees", 1, 170), ("distance_m", 0.3, 1000), ("clothes_cm", 0, 20), ("in_frame", 0, 1),
            ("place_x", -1, 2), ("place_y", -1, 2),
        )  # fmt: skip
        for name, low, high in ranges:
            a, b = getattr(self, name)
            if not low <= a <= b <= high:
                raise _wrong(name, (a, b), f"give a lower and an upper end between {low} and {high}")
        if not -60 <= self.pitch_degrees[0] <= self.pitch_degrees[1] <= 60:
            raise _wrong("pitch_degrees", self.pitch_degrees, "give two ends between -60 and 60")


def _wrong(setting: str, found: object, fix: str) -> InputError:
    return InputError("synth config", setting, repr(found), fix.capitalize() + ".")
