"""From a scene's evidence and an initialiser's predictions to a fit's input."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from depthfit.camera import regressor_focal
from depthfit.errors import InputError, check_choice
from depthfit.evidence.cameras import NOTHING_KNOWN, CameraPrior, check_focal
from depthfit.evidence.depth import DepthEdges, DepthMap, depth_edges, valid_mask
from depthfit.evidence.keypoints import KeypointPerson, keypoint_sigma_px
from depthfit.evidence.mask import Contour, mask_contour, person_area
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.config import FitConfig
from depthfit.fit.inputs import ImageInput, OutlineInput, PersonInput
from depthfit.perception.depth_mask import depth_masks

CAMERA_SOURCES = ("evidence", "regressor")
KNOWN_FOCAL_SIGMA = 0.01
"""Of the log of a focal that is given without its error."""
EDGE_BOX_MARGIN = 0.25
"""Depth edges are looked for this far outside the keypoints' box, in its longer sides: hands, feet, hair."""
EDGE_INSIDE_PX = 2
"""Px of the depth map, towards the nearer side: there lies the surface whose edge it is."""
EDGE_DEPTH_RANGE = 0.35
"""An edge whose nearer side is farther than this (log depth) from the person's median is another thing's."""

POSE_FACTORS = (0.5, 2.0)
"""Least and greatest: entropies beyond were never seen beside their errors."""


@dataclass(frozen=True)
class Prediction:
    """What an initialiser says of one person.

    Attributes:
        person: 1-based number in the image, as in masks; row: its row in predictions.npz, or -1.
        root: (3, 3); pose: (23, 3, 3); betas: (10,): camera frame.
        transl: (3,) m, the pelvis; focal: px: the prediction's own camera.
        token_probabilities: (160, 2048) or ``None``.
        token_entropy: Nats, their mean over the tokens; usual_entropy: that of predictions of this regressor
            with the usual error. ``None`` where they are not known.
        detection: The keypoints that belong to this person, or ``None``.
        pose_sigma, root_sigma: rad, where the initialiser knows its own error; else the config's.
        betas_sigma: The same of the betas; infinite where they are not predicted, but the mean shape's.
    """

    person: int
    row: int
    root: Tensor
    pose: Tensor
    betas: Tensor
    transl: Tensor
    focal: float
    token_probabilities: Tensor | None
    detection: KeypointPerson | None
    pose_sigma: float | None = None
    root_sigma: float | None = None
    betas_sigma: float | None = None
    token_entropy: float | None = None
    usual_entropy: float | None = None

    @property
    def has_betas(self) -> bool:
        """Whether somebody predicted the shape."""
        return self.betas_sigma is None or math.isfinite(self.betas_sigma)


@dataclass
class EvidenceMaps:
    """What follows from an image's depth map and masks alone, worked out when it is first asked for.

    It is most of the time of an input. Fits of the same image under several settings share it.

    Attributes:
        depth: The image's depth map; labels: (H, W) uint8 masks, k = k-th person.
        size: (width, height) px of the image.
        detections: Keypoints of the people.
    """

    depth: DepthMap | None
    labels: np.ndarray | None
    size: tuple[int, int]
    detections: list[KeypointPerson | None]
    _valid: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)
    _contours: dict[tuple[int, int], Contour] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, evidence: ImageEvidence, predictions: list[Prediction]) -> EvidenceMaps:
        return cls(evidence.depth, evidence.labels, evidence.size, [p.detection for p in predictions])

    def valid(self, erode_px: int) -> np.ndarray:
        """(h, w) bool, pixels of the depth map that a fit may use."""
        assert self.depth is not None
        if erode_px not in self._valid:
            self._valid[erode_px] = valid_mask(self.depth.metres, erode_px)
        return self._valid[erode_px]

    def contour(self, person: int, points: int) -> Contour:
        """The outline of a person of the masks."""
        assert self.labels is not None
        key = person, points
        if key not in self._contours:
            self._contours[key] = mask_contour(self.labels, person, points)
        return self._contours[key]

    @cached_property
    def edges(self) -> DepthEdges:
        """Of the depth map."""
        assert self.depth is not None
        return depth_edges(self.depth.metres)

    @cached_property
    def owners(self) -> np.ndarray | None:
        """(H, W) uint8: whose the pixels are, k = k-th prediction, as far as depth and keypoints tell it.

        Without masks, somebody who stands in front would be taken for a part of whom they hide. ``None`` for
        one person: what is not theirs is then told by its depth alone.
        """
        if self.depth is None or len(self.detections) < 2:
            return None
        return depth_masks(self.depth, self.detections, self.size)


def image_input(
    evidence: ImageEvidence,
    predictions: list[Prediction],
    config: FitConfig,
    maps: EvidenceMaps | None = None,
) -> ImageInput:
    """Gather an image's evidence for the people in ``predictions``; each must have a detection.

    ``maps`` are those of the same depth, masks and predictions, where other settings need them too.

    Raises:
        InputError: As :func:`image_camera`.
    """
    if maps is None:
        maps = EvidenceMaps.of(evidence, predictions)
    camera = image_camera(evidence, config)
    depth = evidence.depth if config.depth.use or config.contour.source != "mask" else None
    log_depth = valid = None
    if depth is not None:
        with np.errstate(divide="ignore"):
            log_depth = torch.from_numpy(np.log(depth.metres).astype(np.float32))
        valid = torch.from_numpy(maps.valid(config.depth.erode_px))
        log_depth = torch.where(valid, log_depth, torch.zeros_like(log_depth))
    masks = evidence.labels if config.contour.source in ("auto", "mask") else None
    owners = maps.owners if masks is None and depth is not None else None
    people = [_person(p, masks, depth, maps, config) for p in predictions]
    if owners is not None and depth is not None:
        people = [_among(person, owners, number, depth) for number, person in enumerate(people, 1)]
    labels = masks if owners is None else owners
    return ImageInput(
        name=evidence.name,
        width=evidence.size[0],
        height=evidence.size[1],
        log_focal=math.log(camera.focal_px),
        log_focal_sigma=camera.sigma_log_focal,
        center=torch.tensor(camera.center, dtype=torch.float32),
        log_depth=log_depth,
        depth_valid=valid,
        depth_focal=None if depth is None else depth.focal_px,
        labels=None if labels is None else torch.from_numpy(labels),
        whole_labels=owners is None,
        people=people,
    )


def _among(person: PersonInput, owners: np.ndarray, number: int, depth: DepthMap) -> PersonInput:
    """The person with their number in ``owners``, and without the outline of others."""
    outline = person.outline
    if outline is not None:
        inner = outline.xy.numpy() - EDGE_INSIDE_PX * outline.normal.numpy() / depth.scale
        inner = inner.round().astype(int)
        rows = inner[:, 1].clip(0, owners.shape[0] - 1)
        columns = inner[:, 0].clip(0, owners.shape[1] - 1)
        own = torch.from_numpy(np.isin(owners[rows, columns], (0, number)))
        kept = OutlineInput(outline.xy[own], outline.normal[own], outline.closed)
        outline = kept if own.any() else None
    return replace(person, label=number, outline=outline)


def image_camera(evidence: ImageEvidence, config: FitConfig) -> CameraPrior:
    """What a fit under ``config`` takes the image's camera for before it begins.

    Raises:
        InputError: The focal is to be held, and nothing tells it; or the one given is in another unit.
    """
    wanted, prior = config.camera, evidence.camera
    check_choice("config", "camera.source", wanted.source, CAMERA_SOURCES)
    if wanted.source == "regressor":
        assumed = float(regressor_focal(*evidence.size))
        prior = CameraPrior(assumed, KNOWN_FOCAL_SIGMA, prior.center, wanted.source)
    if wanted.focal_px is not None:
        check_focal("config", "camera.focal_px", wanted.focal_px, evidence.size)
    focal = prior.focal_px if wanted.focal_px is None else wanted.focal_px
    sigma = prior.sigma_log_focal if wanted.sigma_log_focal is None else wanted.sigma_log_focal
    if wanted.focal_px is not None and wanted.sigma_log_focal is None:
        sigma = KNOWN_FOCAL_SIGMA
    source = prior.source if wanted.focal_px is None else "config"
    if wanted.freeze_focal and source == NOTHING_KNOWN:
        # Held, a usual field of view would pass for a known one.
        found = "the focal is to be held, but nothing tells that of this image"
        fix = "Give it in cameras.json, EXIF, the depth file or camera.focal_px, or let the focal move."
        raise InputError(evidence.path, "camera.freeze_focal", found, fix)
    return CameraPrior(focal, sigma, prior.center, source)


def _person(
    prediction: Prediction,
    labels: np.ndarray | None,
    depth: DepthMap | None,
    maps: EvidenceMaps,
    config: FitConfig,
) -> PersonInput:
    assert prediction.detection is not None
    detection = prediction.detection.trusted(config.keypoints.min_confidence)
    box, area, label = detection.box(maps.size), None, None
    if labels is not None and person_area(labels, prediction.person) > 0:
        label = prediction.person
        rows, columns = np.nonzero(labels == label)
        area = float(len(rows))
        seen = np.array([columns.min(), rows.min(), columns.max(), rows.max()], dtype=float)
        box = np.concatenate([np.minimum(box[:2], seen[:2]), np.maximum(box[2:], seen[2:])])
    return PersonInput(
        root=prediction.root,
        pose=prediction.pose,
        betas=prediction.betas,
        transl=prediction.transl,
        focal=prediction.focal,
        keypoints=torch.from_numpy(detection.xy).float(),
        keypoint_sigma=_floats(keypoint_sigma_px(detection, area, config.keypoints.noise_factor, maps.size)),
        box=torch.from_numpy(box).float(),
        token_probabilities=prediction.token_probabilities,
        label=label,
        pose_sigma=prediction.pose_sigma,
        pose_factor=_pose_factor(prediction, config),
        root_sigma=prediction.root_sigma,
        betas_sigma=prediction.betas_sigma,
        outline=_outline(label, detection, depth, maps, config),
    )


def _pose_factor(prediction: Prediction, config: FitConfig) -> float:
    """How far a prediction errs against the usual, as far as the entropy of its tokens tells it.

    In token space the probabilities are the prior themselves.
    """
    wanted = config.pose
    usual = prediction.usual_entropy if wanted.usual_entropy is None else wanted.usual_entropy
    if prediction.token_entropy is None or usual is None or wanted.space != "rotations":
        return 1.0
    low, high = POSE_FACTORS
    return min(max(math.exp(wanted.entropy_gain * (prediction.token_entropy - usual)), low), high)


def _outline(
    label: int | None,
    detection: KeypointPerson,
    depth: DepthMap | None,
    maps: EvidenceMaps,
    config: FitConfig,
) -> OutlineInput | None:
    source = config.contour.source
    if source in ("auto", "mask") and label is not None:
        contour = maps.contour(label, config.contour.points)
        points, normals = contour.points[contour.valid], contour.normals[contour.valid]
        return OutlineInput(_floats(points), _floats(normals), closed=True) if len(points) else None
    if source in ("auto", "depth") and depth is not None:
        return _edge_outline(detection, depth, maps, config.contour.points)
    return None


def _edge_outline(
    detection: KeypointPerson, depth: DepthMap, maps: EvidenceMaps, count: int
) -> OutlineInput | None:
    """Depth edges around a person whose nearer side is at the person's distance."""
    edges = maps.edges
    points = depth.to_image(edges.points)
    at_points = depth.sample(detection.xy[detection.found])
    if not (at_points > 0).any() or not len(points):
        return None
    middle = np.median(np.log(at_points[at_points > 0]))
    x0, y0, x1, y1 = detection.box(maps.size)
    margin = EDGE_BOX_MARGIN * max(x1 - x0, y1 - y0)
    low, high = np.array([x0 - margin, y0 - margin]), np.array([x1 + margin, y1 + margin])
    near = depth.sample(points - EDGE_INSIDE_PX * edges.normals / depth.scale)
    log_near = np.log(np.where(near > 0, near, 1e9))
    keep = ((points >= low) & (points <= high)).all(-1) & (np.abs(log_near - middle) < EDGE_DEPTH_RANGE)
    points, normals = points[keep], edges.normals[keep]
    if not len(points):
        return None
    pick = np.linspace(0, len(points) - 1, min(count, len(points))).round().astype(int)
    return OutlineInput(_floats(points[pick]), _floats(normals[pick]), closed=False)


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
