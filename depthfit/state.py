"""The unknowns of a batch of images, and the layout of a step in them.

People of all images stand in one flat list of N rows; ``image`` (N,) names the image of each. An image's
camera is shared by its people.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthfit.joints import NUM_BODY_JOINTS
from depthfit.struct import TensorStruct, where

LOG_FOCAL, LOG_SCALE, NUM_SHARED = 0, 1, 2
"""Columns of an image's step."""


@dataclass(frozen=True)
class PersonState(TensorStruct):
    """Unknowns of N people, in the camera's frame (x right, y down, z forward).

    Attributes:
        root: (N, 3, 3) root rotation.
        pose: (N, 23, 3, 3) joint rotations; hands (the last two) are held.
        betas: (N, B).
        bearing: (N, 2), pelvis (x/z, y/z).
        log_distance: (N,), log of the pelvis' z in m.
        clothes: (N, C) m, how far clothes stand off the body: everywhere, then beyond that on each part.
        field: (N, K) amplitudes of the person's smooth depth-error field, in log depth.
        tokens: (N, T, C) soft code embeddings; T = 0 where the pose is not held by tokens.
        dual: (N, T, C): tokens = prior mean + prior covariance @ dual.
    """

    root: Tensor
    pose: Tensor
    betas: Tensor
    bearing: Tensor
    log_distance: Tensor
    clothes: Tensor
    field: Tensor
    tokens: Tensor
    dual: Tensor

    @property
    def transl(self) -> Tensor:
        """(N, 3) m, the pelvis in the camera's frame."""
        ray = torch.cat([self.bearing, torch.ones_like(self.bearing[:, :1])], -1)
        return ray * self.log_distance.exp()[:, None]


@dataclass(frozen=True)
class ImageState(TensorStruct):
    """Unknowns of I images: ``log_focal`` (I,) of px, ``log_scale`` (I,) of the depth map."""

    log_focal: Tensor
    log_scale: Tensor


@dataclass(frozen=True)
class FitState:
    """Everything that a fit moves."""

    people: PersonState
    images: ImageState

    def select(self, accepted: Tensor, old: FitState, group: Tensor) -> FitState:
        """This state for the images where ``accepted`` (I,) is true, ``old`` elsewhere."""
        people = where(accepted[group], self.people, old.people)
        return FitState(people, where(accepted, self.images, old.images))


@dataclass(frozen=True)
class StepLayout:
    """Columns of one person's step: root, body pose, betas, bearing, distance, clothes, field."""

    num_betas: int
    num_clothes: int
    num_field: int
    num_pose: int = 3 * NUM_BODY_JOINTS

    @property
    def rigid(self) -> StepLayout:
        """The columns without those that bend or shape the body, and without the field."""
        return StepLayout(0, self.num_clothes, 0, 0)

    @property
    def is_rigid(self) -> bool:
        """Whether pose, shape and field have no columns."""
        return not (self.num_pose or self.num_betas or self.num_field)

    @property
    def root(self) -> slice:
        return slice(0, 3)

    @property
    def pose(self) -> slice:
        return slice(3, 3 + self.num_pose)

    @property
    def betas(self) -> slice:
        return slice(self.pose.stop, self.pose.stop + self.num_betas)

    @property
    def bearing(self) -> slice:
        return slice(self.betas.stop, self.betas.stop + 2)

    @property
    def distance(self) -> int:
        return self.bearing.stop

    @property
    def clothes(self) -> slice:
        return slice(self.distance + 1, self.distance + 1 + self.num_clothes)

    @property
    def field(self) -> slice:
        return slice(self.clothes.stop, self.clothes.stop + self.num_field)

    @property
    def size(self) -> int:
        return self.field.stop
