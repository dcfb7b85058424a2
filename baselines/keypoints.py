"""No regressor at all: people from their 2D keypoints (and depth, where there is one).

Each person is fitted from several postures, turned to every side, under a wide prior. First only camera and
root move; the starts that explain the evidence best go on with all unknowns, and the best of them is the
prediction that the joint fit then starts from.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from baselines.context import InitContext
from depthfit import so3
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.match import match_masks
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit.adapter import EvidenceMaps, Prediction, image_input
from depthfit.fit.config import FitConfig
from depthfit.fit.fitter import Fitter
from depthfit.fit.search import WIDE
from depthfit.joints import JOINT_INDEX, KEYPOINTS
from depthfit.state import FitState

_log = logging.getLogger(__name__)
MIN_POINTS = 5
"""A person with fewer detected points is left out: they do not tell an orientation."""
YAWS = 8
FINALISTS = 4
START_POSE_SIGMA, START_ROOT_SIGMA = 0.45, 1.5
"""rad: how far a start may be from the truth."""
POSE_SIGMA, ROOT_SIGMA = 0.3, 0.5
"""rad: how far the best start, once fitted, is taken to be from the truth."""
START_DISTANCE = 4.0
POSTURES: tuple[dict[str, tuple[float, float, float]], ...] = (
    # Standing, arms hanging.
    {"left_shoulder": (0, 0, -1.2), "right_shoulder": (0, 0, 1.2)},
    # Crouching, arms forward.
    {
        "left_hip": (-1.0, 0, 0), "right_hip": (-1.0, 0, 0), "left_knee": (1.2, 0, 0),
        "right_knee": (1.2, 0, 0), "spine1": (0.4, 0, 0), "left_shoulder": (0, -0.9, -0.5),
        "right_shoulder": (0, 0.9, 0.5), "left_elbow": (0, -0.8, 0), "right_elbow": (0, 0.8, 0),
    },
)  # fmt: skip
"""Joint rotations (axis-angle, rad) of the start postures; all others are zero."""


def from_keypoints(evidence: ImageEvidence, context: InitContext) -> list[Prediction]:
    """One prediction for each detected person with at least ``MIN_POINTS`` points; others are logged."""
    found = [p for p in evidence.people if int(p.found.sum()) >= MIN_POINTS]
    if len(found) < len(evidence.people):
        missing = len(evidence.people) - len(found)
        _log.warning("%s: %d people with under %d points left out", evidence.path, missing, MIN_POINTS)
    fitter = Fitter(context.body, context.tokenizer, _start_config(context.config), context.device)
    numbers = person_numbers(found, evidence.labels)
    return [_best_start(evidence, p, number, fitter) for p, number in zip(found, numbers, strict=True)]


def person_numbers(people: Sequence[KeypointPerson], labels: np.ndarray | None) -> list[int]:
    """A number from 1 for each detected person: their label in the mask (H, W) where they have one.

    Detectors list people in an order of their own; without this a person would get another's outline.
    """
    if labels is None or not people:
        return list(range(1, len(people) + 1))
    matched = match_masks(people, labels).tolist()
    free = itertools.count(int(labels.max()) + 1)
    return [label if label > 0 else next(free) for label in matched]


def _start_config(config: FitConfig) -> FitConfig:
    """Fewer rounds on a coarser grid, and no verdict: a start is judged against its rivals alone."""
    solver = replace(config.solver, rounds=5, polish=0, grid=96, hypotheses=False)
    depth = replace(config.depth, samples=250)
    verdict = replace(config.verdict, use=False)
    return replace(config, solver=solver, depth=depth, verdict=verdict)


@torch.no_grad()
def _best_start(evidence: ImageEvidence, person: KeypointPerson, number: int, fitter: Fitter) -> Prediction:
    starts = _starts(person, number)
    maps = EvidenceMaps.of(evidence, starts[:1])
    images = [image_input(evidence, [start], fitter.config, maps) for start in starts]
    scheduler, schedule = fitter.scheduler(images), WIDE
    rooted = scheduler.root(scheduler.camera(scheduler.start(), schedule).state, schedule)
    order = rooted.fit.cost(rooted.state).nan_to_num(torch.inf).argsort()[:FINALISTS]
    finalists = fitter.scheduler([images[i] for i in order.tolist()])
    solved = finalists.bodies(FitState(rooted.state.people[order], rooted.state.images[order]), schedule)
    best = int(solved.fit.cost(solved.state).nan_to_num(torch.inf).argmin())
    people = solved.state.people[best : best + 1]
    return Prediction(
        person=number,
        row=-1,
        root=people.root[0].cpu(),
        pose=people.pose[0].cpu(),
        betas=people.betas[0, : fitter.body.num_betas].cpu(),
        transl=people.transl[0].cpu(),
        focal=float(solved.state.images.log_focal[best].exp()),
        token_probabilities=None,
        detection=person,
        pose_sigma=POSE_SIGMA,
        root_sigma=ROOT_SIGMA,
    )


def _starts(person: KeypointPerson, number: int) -> list[Prediction]:
    """Every posture turned to every side, leaning as the trunk does in the image."""
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # body: y up, facing +z; camera: y down, z forward
    lean = so3.exp(torch.tensor([0.0, 0.0, _trunk_angle(person)]))
    starts = []
    for posture in POSTURES:
        pose = torch.eye(3).repeat(23, 1, 1)
        for name, turn in posture.items():
            pose[JOINT_INDEX[name] - 1] = so3.exp(torch.tensor(turn))
        for k in range(YAWS):
            yaw = so3.exp(torch.tensor([0.0, 2 * math.pi * k / YAWS, 0.0]))
            starts.append(_prediction(person, number, lean @ upright @ yaw, pose))
    return starts


def _prediction(person: KeypointPerson, number: int, root: Tensor, pose: Tensor) -> Prediction:
    return Prediction(
        person=number,
        row=-1,
        root=root,
        pose=pose,
        betas=torch.zeros(10),
        transl=torch.tensor([0.0, 0.0, START_DISTANCE]),
        focal=1.0,
        token_probabilities=None,
        detection=person,
        pose_sigma=START_POSE_SIGMA,
        root_sigma=START_ROOT_SIGMA,
    )


def _trunk_angle(person: KeypointPerson) -> float:
    """rad by which the trunk leans in the image, clockwise from upright; zero where it is not seen."""

    def middle(*names: str) -> Tensor | None:
        seen = [KEYPOINTS.index(n) for n in names if person.found[KEYPOINTS.index(n)]]
        return torch.from_numpy(person.xy[seen].mean(0)) if seen else None

    shoulders, hips = (
        middle("left_shoulder", "right_shoulder", "neck"),
        middle("left_hip", "right_hip", "mid_hip"),
    )
    if shoulders is None or hips is None:
        return 0.0
    up = shoulders - hips
    return math.atan2(float(up[0]), -float(up[1]))
