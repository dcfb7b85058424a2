"""From inputs to the tensors of a batch: every person's evidence in one window of their own."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.body.model import Body
from depthfit.data.pose_mixture import load_pose_mixture
from depthfit.errors import DepthfitError, check_choice
from depthfit.fit.config import FitConfig
from depthfit.fit.inputs import ImageInput, PersonInput
from depthfit.fit.nuisance import CORRELATION, NUM_CLOTHES, clothes_prior, field_spectrum
from depthfit.fit.space import (
    PoseSpace,
    RotationSpace,
    TokenSpace,
    flat_token_prior,
    pose_offset,
    token_prior,
)
from depthfit.joints import KEYPOINTS, NUM_BODY_JOINTS, SMPL_JOINTS
from depthfit.residuals import KeypointTargets, tals
from depthfit.residuals.pose_priors import LimitPrior, MixturePrior, PosePrior
from depthfit.residuals.prior import ImagePrior, PersonPrior
from depthfit.so3 import to_6d
from depthfit.state import StepLayout
from depthfit.struct import TensorStruct, scatter
from depthfit.tokens.vqvae import Tokenizer

BOX_MARGIN = 1.3
"""Side of a person's window over the side of their evidence's box."""
POPULATIONS = {"auto": 8, "none": 0, "gaussian": 1, "mixture": 8}
"""Gaussians in each population prior."""
DISTAL = ("knee", "ankle", "elbow", "wrist", "foot")


@dataclass(frozen=True)
class Window(TensorStruct):
    """Evidence of N people on a square grid of S x S pixels of the image.

    Attributes:
        origin: (N, 2) px of cell (0, 0); step: (N,) px between cells.
        log_depth: (N, S, S) canonical (or metric) log depth; depth_valid: (N, S, S) bool.
        inside: (N, S, S) bool: the cell lies in the image.
        own: (N, S, S) bool: the person may be seen here (their mask, or anywhere without one).
        other: (N, S, S) bool: another person's mask.
    """

    origin: Tensor
    step: Tensor
    log_depth: Tensor
    depth_valid: Tensor
    inside: Tensor
    own: Tensor
    other: Tensor


@dataclass(frozen=True)
class Outline(TensorStruct):
    """Outline points of N people: xy, normal (N, C, 2), valid (N, C), closed (N,) bool."""

    xy: Tensor
    normal: Tensor
    valid: Tensor
    closed: Tensor


@dataclass(frozen=True)
class Batch(TensorStruct):
    """A batch of I images with N people as tensors, and the priors.

    Attributes:
        group: (N,) image of each person; center: (N, 2) px; size: (N,) px, of the person in the image.
        focal_coupling: (N,) one where depth is canonical, zero where it is metric.
        root, pose, betas: The prediction; its betas end in zeros for bones.
    """

    group: Tensor
    center: Tensor
    size: Tensor
    focal_coupling: Tensor
    root: Tensor
    pose: Tensor
    betas: Tensor
    targets: KeypointTargets
    window: Window
    outline: Outline
    person_prior: PersonPrior
    image_prior: ImagePrior

    @property
    def num_images(self) -> int:
        return len(self.image_prior.log_focal)

    def subset(self, images: Tensor) -> tuple[Batch, Tensor]:
        """The batch of some images (M,) ascending, and the rows of their people in this one."""
        kept = torch.zeros(self.num_images, dtype=torch.bool, device=images.device)
        kept[images] = True
        rows = torch.nonzero(kept[self.group])[:, 0]
        number = torch.cumsum(kept, 0) - 1
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("group", "image_prior")]
        people = {name: getattr(self, name)[rows] for name in names}
        group, prior = number[self.group[rows]], self.image_prior[images]
        return Batch(group=group, image_prior=prior, **people), rows


def make_batch(
    images: list[ImageInput], body: Body, config: FitConfig, layout: StepLayout, device: torch.device
) -> Batch:
    """Gather images that have at least one person each."""
    people = [(i, image, person) for i, image in enumerate(images) for person in image.people]
    if not people or any(not image.people for image in images):
        raise DepthfitError("a batch needs images with at least one person each")

    def stack(values: list[Tensor]) -> Tensor:
        return torch.stack(values).to(device=device, dtype=body.v_template.dtype)

    def numbers(values: list[float]) -> Tensor:
        return torch.tensor(values, device=device, dtype=body.v_template.dtype)

    windows = [_window(image, person, config) for _, image, person in people]
    window = Window(
        stack([w.origin for w in windows]),
        stack([w.step for w in windows]),
        stack([w.log_depth for w in windows]),
        torch.stack([w.depth_valid for w in windows]).to(device),
        torch.stack([w.inside for w in windows]).to(device),
        torch.stack([w.own for w in windows]).to(device),
        torch.stack([w.other for w in windows]).to(device),
    )
    sigma = [keypoint_sigma(person, body, config) for _, _, person in people]
    metric = [image.depth_focal is None for _, image, _ in people]
    size = numbers([_size(person) for _, _, person in people])
    thresholds = tals_thresholds(size, config.keypoints.tals)
    return Batch(
        group=torch.tensor([i for i, _, _ in people], device=device),
        center=stack([image.center for _, image, _ in people]),
        size=size,
        focal_coupling=numbers([0.0 if m else 1.0 for m in metric]),
        root=stack([p.root for _, _, p in people]),
        pose=stack([p.pose for _, _, p in people]),
        betas=_predicted_betas([p for _, _, p in people], layout).to(device, body.v_template.dtype),
        targets=KeypointTargets(
            stack([p.keypoints.nan_to_num() for _, _, p in people]), stack(sigma), *thresholds
        ),
        window=window,
        outline=_outlines([p for _, _, p in people], config).to(device, body.v_template.dtype),
        person_prior=_person_prior([p for _, _, p in people], body, config, layout, device),
        image_prior=ImagePrior(
            numbers([image.log_focal for image in images]),
            numbers([image.log_focal_sigma / CORRELATION for image in images]),
            numbers([config.depth.scale_sigma / CORRELATION] * len(images)),
        ),
    )


def keypoint_sigma(person: PersonInput, body: Body, config: FitConfig) -> Tensor:
    """(K,) px: detector and body-model error in quadrature; infinite where there is no point."""
    stature = float(body.v_template[:, 1].max() - body.v_template[:, 1].min())
    # The scale px / m of a person is not known yet: their size in the image stands for it.
    model = config.keypoints.model_cm / 100 * _size(person) / stature
    sigma = torch.hypot(person.keypoint_sigma, torch.full_like(person.keypoint_sigma, model))
    seen = person.keypoints.isfinite().all(-1) & torch.tensor(config.keypoints.use)
    return torch.where(seen & sigma.isfinite(), sigma, torch.full_like(sigma, torch.inf))


def tals_thresholds(size: Tensor, variant: str) -> tuple[Tensor | None, int]:
    """Thresholds (N, K) px of people of ``size`` (N,) px, and the norm of the errors compared with them.

    TALS is made in sides of a regressor's square crop, for which the longer side of the person's box stands.
    """
    if variant == "none":
        return None, 2
    check_choice("config", "keypoints.tals", variant, ("none", *tals.FIT_THRESHOLDS))
    by_name, norm = tals.FIT_THRESHOLDS[variant]
    return size[:, None] * size.new_tensor([by_name[name] for name in KEYPOINTS]), norm


def pose_priors(config: FitConfig, like: Tensor) -> tuple[PosePrior, ...]:
    """The priors on the pose beside the prediction's, of the dtype and on the device of ``like``."""
    wanted, found = config.pose, list[PosePrior]()
    check_choice("config", "pose.population", wanted.population, POPULATIONS)
    components = POPULATIONS[wanted.population]
    if components:
        mixture = load_pose_mixture(components)
        prior = MixturePrior.of(mixture, wanted.population_play_rad, wanted.population_robust_sigmas)
        found.append(prior.to(like.device, like.dtype))
    if wanted.limit_sigma_rad is not None:
        found.append(LimitPrior.of(wanted.limit_sigma_rad).to(like.device, like.dtype))
    return tuple(found)


def pose_space(
    images: list[ImageInput], batch: Batch, tokenizer: Tokenizer | None, config: FitConfig
) -> PoseSpace:
    """The space in which poses are stepped."""
    people = [person for image in images for person in image.people]
    body_pose = batch.pose[:, :NUM_BODY_JOINTS]
    sigma = torch.tensor([p.pose_sigma or config.pose.sigma_rad for p in people]).to(body_pose)
    if config.pose.space == "rotations":
        factor = [
            config.pose.distal_factor if any(d in name for d in DISTAL) else 1.0
            for name in SMPL_JOINTS[1 : NUM_BODY_JOINTS + 1]
        ]
        own = sigma * torch.tensor([p.pose_factor for p in people]).to(sigma)
        scale = torch.diag(torch.tensor(factor).to(body_pose).repeat_interleave(3)) * own[:, None, None]
        return RotationSpace(body_pose, scale)
    if config.pose.space != "tokens" or tokenizer is None:
        raise DepthfitError(
            f"pose.space={config.pose.space!r}: use 'tokens' (with a tokenizer) or 'rotations'"
        )
    encoded = tokenizer.encode(to_6d(body_pose))
    prior = flat_token_prior(tokenizer, encoded, sigma * config.pose.flat_gain)
    given = [(n, p.token_probabilities) for n, p in enumerate(people) if p.token_probabilities is not None]
    if given:
        rows = torch.tensor([n for n, _ in given], device=sigma.device)
        probabilities = torch.stack([p for _, p in given]).to(body_pose)
        inflation = sigma[rows] * config.pose.token_gain
        told = token_prior(tokenizer, probabilities, inflation, config.pose.floor)
        # Who comes without probabilities has a spread of nothing beside the flat one.
        none = prior.mean.new_zeros(len(people), *told.spread.shape[1:])
        prior = scatter(rows, told, prior.replace(spread=none))
    # What the decoder says otherwise than the prediction is held beside it, so that a fit which moves no
    # token returns the prediction itself. It carries the tokenizer's own error and TokenHMR's mean pose.
    offset = pose_offset(tokenizer.decode(prior.mean), body_pose)
    return TokenSpace(tokenizer, prior, offset)


def _size(person: PersonInput) -> float:
    box = person.box
    return float(torch.maximum(box[2] - box[0], box[3] - box[1]).clamp(min=1))


def _window(image: ImageInput, person: PersonInput, config: FitConfig) -> Window:
    side = config.solver.grid
    step = _size(person) * BOX_MARGIN / side
    middle = torch.stack([person.box[0] + person.box[2], person.box[1] + person.box[3]]) / 2
    origin = middle - step * (side - 1) / 2
    offsets = torch.arange(side) * step
    x, y = (origin[0] + offsets).round().long(), (origin[1] + offsets).round().long()
    inside = ((y >= 0) & (y < image.height))[:, None] & ((x >= 0) & (x < image.width))[None]

    def sample(values: Tensor) -> Tensor:
        rows = (y * values.shape[0] // image.height).clamp(0, values.shape[0] - 1)
        columns = (x * values.shape[1] // image.width).clamp(0, values.shape[1] - 1)
        return values[rows[:, None], columns[None]]

    log_depth, valid = torch.zeros(side, side), torch.zeros(side, side, dtype=torch.bool)
    if config.depth.use and image.log_depth is not None and image.depth_valid is not None:
        valid = sample(image.depth_valid) & inside
        log_depth = torch.where(valid, sample(image.log_depth), log_depth)
        if image.depth_focal is not None:
            log_depth = log_depth - math.log(image.depth_focal)
    own, other = inside, torch.zeros_like(inside)
    if image.labels is not None and person.label is not None:
        labels = sample(image.labels)
        other = inside & (labels != person.label) & (labels != 0)
        own = inside & (labels == person.label) if image.whole_labels else inside & ~other
    return Window(origin, torch.tensor(step), log_depth, valid, inside, own, other)


def _outlines(people: list[PersonInput], config: FitConfig) -> Outline:
    # Without any outline no pair is looked for.
    count = config.contour.points if any(p.outline is not None for p in people) else 0
    xy, normal = torch.zeros(len(people), count, 2), torch.zeros(len(people), count, 2)
    valid = torch.zeros(len(people), count, dtype=torch.bool)
    closed = torch.zeros(len(people), dtype=torch.bool)
    for i, person in enumerate(people):
        if person.outline is None:
            continue
        # An outline with more points than asked for is thinned evenly.
        total = len(person.outline.xy)
        pick = torch.linspace(0, total - 1, min(total, count)).round().long()
        xy[i, : len(pick)], normal[i, : len(pick)] = person.outline.xy[pick], person.outline.normal[pick]
        valid[i, : len(pick)] = True
        closed[i] = person.outline.closed
    return Outline(xy, normal, valid, closed)


def _predicted_betas(people: list[PersonInput], layout: StepLayout) -> Tensor:
    betas = torch.stack([p.betas for p in people])
    return torch.nn.functional.pad(betas, (0, layout.num_betas - betas.shape[1]))


def _person_prior(
    people: list[PersonInput], body: Body, config: FitConfig, layout: StepLayout, device: torch.device
) -> PersonPrior:
    n, dtype = len(people), body.v_template.dtype
    predicted = _predicted_betas(people, layout).to(device, dtype)
    sigma = [config.body.betas_sigma if p.betas_sigma is None else p.betas_sigma for p in people]
    # Nothing predicts the bones.
    own = torch.zeros_like(predicted)
    own[:, : len(people[0].betas)] = torch.tensor(sigma).to(predicted)[:, None] ** -2
    ones = predicted.new_ones(n)
    row, target = ones.new_zeros(n, layout.num_betas), ones.new_zeros(n)
    if config.body.height_m is not None:
        mean, slope = body.height()
        row = (slope / config.body.height_sigma_m).expand(n, -1)
        target = ones * (config.body.height_m - mean) / config.body.height_sigma_m
    clothes, clothes_sigma = clothes_prior(config, ones)
    return PersonPrior(
        root=torch.stack([p.root for p in people]).to(device=device, dtype=dtype),
        root_sigma=torch.tensor([p.root_sigma or config.pose.root_sigma_rad for p in people]).to(ones),
        betas=predicted * own / (1 + own),
        betas_sigma=(1 + own) ** -0.5,
        clothes=clothes.expand(n, -1),
        clothes_sigma=clothes_sigma.expand(n, -1),
        field_sigma=field_spectrum(config).to(predicted).expand(n, -1),
        height_row=row,
        height_target=target,
        population=torch.tensor([_counts_population(p, config) for p in people]).to(ones),
    )


def _counts_population(person: PersonInput, config: FitConfig) -> bool:
    # Who comes with an error of their own was predicted from the evidence that the fit sees again.
    return config.pose.population != "auto" or person.pose_sigma is None


def step_layout(body: Body, config: FitConfig) -> StepLayout:
    """Columns of a step for this body and field."""
    return StepLayout(body.num_betas, NUM_CLOTHES, len(field_spectrum(config)))
