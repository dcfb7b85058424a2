"""What a fit is given: images with a camera prior, depth and outlines, and the people in them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class OutlineInput:
    """Points of a person's outline.

    Attributes:
        xy: (C, 2) px; normal: (C, 2) unit, outward.
        closed: The outline is all there is (a mask): a rim that is far from it is wrong. A depth edge is
            not: parts of the rim may have no edge.
    """

    xy: Tensor
    normal: Tensor
    closed: bool


@dataclass(frozen=True)
class PersonInput:
    """One person: a prediction, and the evidence about them.

    Attributes:
        root: (3, 3); pose: (23, 3, 3); betas: (10,): the prediction, camera frame.
        transl: (3,) m and focal (px): the prediction's own camera, for the record.
        keypoints: (K, 2) px in the order of ``joints.KEYPOINTS``.
        keypoint_sigma: (K,) px of the detector; infinite where a point was not detected.
        box: (4,) px, x0 y0 x1 y1 of the evidence.
        token_probabilities: (T, codes) or ``None``.
        pose_sigma, root_sigma: rad, the prediction's own error where it is known; else the config's.
        pose_factor: On the config's pose sigma: by how much less sure of this person than usual the regressor
            was.
        betas_sigma: The same of the betas; infinite where the population alone tells the shape.
        label: Value of this person in the label mask, or ``None``.
        outline: ``None`` where there is none.
    """

    root: Tensor
    pose: Tensor
    betas: Tensor
    transl: Tensor
    focal: float
    keypoints: Tensor
    keypoint_sigma: Tensor
    box: Tensor
    token_probabilities: Tensor | None = None
    label: int | None = None
    pose_sigma: float | None = None
    pose_factor: float = 1.0
    root_sigma: float | None = None
    betas_sigma: float | None = None
    outline: OutlineInput | None = None


@dataclass(frozen=True)
class ImageInput:
    """One image.

    Attributes:
        log_focal, log_focal_sigma: Prior of the focal (log of px).
        center: (2,) px.
        log_depth: (H, W) log of metres, or ``None``; ``depth_valid`` (H, W) bool.
        depth_focal: px, the focal that the depth estimator assumed, or ``None`` for metric depth.
        labels: (H, W) person labels, 0 = none, or ``None``.
        whole_labels: A person ends where their label does (masks). Else labels tell people from each other
            alone, and a pixel without one may be anybody's.
    """

    name: str
    width: int
    height: int
    log_focal: float
    log_focal_sigma: float
    center: Tensor
    log_depth: Tensor | None = None
    depth_valid: Tensor | None = None
    depth_focal: float | None = None
    labels: Tensor | None = None
    whole_labels: bool = True
    people: list[PersonInput] = field(default_factory=list)
