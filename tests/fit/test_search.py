"""Choosing among minima: what is compared, and that more starts never choose a worse one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.data.pose_library import load_pose_library
from depthfit.evidence.mask import mask_contour
from depthfit.fit import FitConfig, Fitter, search
from depthfit.fit.hypotheses import bends_naturally
from depthfit.fit.inputs import ImageInput, OutlineInput
from depthfit.fit.stages import ALL_UNKNOWNS, Parts, Plan, flat_chart
from depthfit.joints import JOINT_INDEX
from depthfit.state import FitState, ImageState
from tests.fit.scenes import FOCAL, exact_config, exact_image


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("open").to(dtype=torch.float64)


@pytest.fixture
def everybody_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "UNSETTLED", -1.0)


def _quick(hypotheses: bool = True) -> FitConfig:
    config = exact_config()
    config.solver.rounds, config.solver.steps, config.solver.grid = 3, 2, 64
    config.solver.polish = 0
    config.depth.samples, config.solver.hypotheses = 120, hypotheses
    return config


@pytest.mark.usefixtures("everybody_again")
def test_more_starts_never_raise_the_cost(body: Body) -> None:
    images = [exact_image(body, seed)[0] for seed in (2, 6, 8)]
    costs = []
    for hypotheses in (False, True):
        after = Fitter(body, None, _quick(hypotheses)).solve(images).after
        costs.append(after.fit.cost(after.state))
    assert (costs[1] <= costs[0]).all()
    assert (costs[1] < costs[0]).any()


@pytest.mark.usefixtures("everybody_again")
def test_a_frozen_focal_stays_in_every_start(body: Body) -> None:
    config = _quick()
    config.camera.freeze_focal = True
    image, _ = exact_image(body, 6)
    (fit,) = Fitter(body, None, config).fit([image])[0]
    assert fit.refined.focal == pytest.approx(math.exp(image.log_focal), rel=1e-9)


def test_only_the_unsettled_of_a_batch_are_tried_again(body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch with one of them equals the solo fits."""
    fitter = Fitter(body, None, _quick())
    images = [exact_image(body, seed)[0] for seed in (2, 3)]

    def second_alone(solved: search.Solved) -> torch.Tensor:
        focal = solved.fit.image_prior.log_focal
        marked = torch.tensor([False, True]) if len(focal) == 2 else torch.ones(len(focal), dtype=torch.bool)
        return marked[solved.fit.group]

    monkeypatch.setattr(search, "unsettled", second_alone)
    together = fitter.fit(images)
    again = fitter.fit(images[1:])[0][0]
    monkeypatch.setattr(
        search, "unsettled", lambda solved: torch.zeros_like(solved.fit.group, dtype=torch.bool)
    )
    once = fitter.fit(images[:1])[0][0]
    for fit, solo in ((together[0][0], once), (together[1][0], again)):
        assert np.allclose(fit.refined.joints, solo.refined.joints, atol=1e-6)
        assert fit.iterations == solo.iterations


def _masked(image: ImageInput) -> ImageInput:
    assert image.depth_valid is not None
    labels = image.depth_valid.to(torch.uint8)
    contour = mask_contour(labels.numpy(), 1, 240)
    points, normals = (torch.from_numpy(v[contour.valid]).float() for v in (contour.points, contour.normals))
    person = dataclasses.replace(image.people[0], label=1, outline=OutlineInput(points, normals, closed=True))
    return dataclasses.replace(image, labels=labels, people=[person])


def test_polish_goes_on_from_the_best_and_never_raises_its_cost(body: Body) -> None:
    images = [exact_image(body, seed)[0] for seed in (2, 6, 8)]
    costs, steps = [], []
    for polish in (0, 4):
        config = _quick()
        config.solver.polish = polish
        after = Fitter(body, None, config).solve(images).after
        costs.append(after.cost)
        steps.append(after.steps)
    assert (costs[1] <= costs[0]).all()
    assert (costs[1] < 0.9 * costs[0]).any()
    assert (steps[1] >= steps[0]).all()
    assert (steps[1] > steps[0]).any()


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_all_evidence_counts_at_the_end_however_few_rounds(body: Body, rounds: int) -> None:
    """Else solutions of different schedules could not be compared."""
    config = _quick()
    config.solver.rounds, config.contour.source = rounds, "mask"
    stages = Fitter(body, None, config).scheduler([_masked(exact_image(body, 1, turn=0.0)[0])])
    start = stages.start()
    for schedule in (search.DIRECT, search.WIDE, search.PATIENT):
        matches = stages.everything(start, schedule).fit.matches
        assert float(matches.depth.weight.sum()) > 0
        assert matches.contour.weight.shape[1] > 0


def test_a_limb_outside_the_mask_pays(body: Body) -> None:
    image, truth = exact_image(body, 1, turn=0.0)
    config = _quick()
    config.contour.source = "mask"
    config.contour.robust_sigmas = 3.0
    scheduler = Fitter(body, None, config).scheduler([_masked(image)])
    start = scheduler.start().people
    transl = truth["transl"]
    people = start.replace(
        root=truth["root"][None],
        bearing=(transl[:2] / transl[2])[None],
        log_distance=transl[2:].log(),
    )
    camera = ImageState(torch.tensor([math.log(FOCAL)]).to(people.root), torch.zeros(1).to(people.root))
    hip = JOINT_INDEX["left_hip"] - 1
    lifted = people.pose.clone()
    lifted[:, hip] = lifted[:, hip] @ so3.exp(torch.tensor([[0.0, 0.0, 1.2]]).to(people.root))
    costs, uncovered = [], []
    for pose in (people.pose, lifted):
        state = FitState(people.replace(pose=pose), camera)
        fit = scheduler.problem(
            state, flat_chart(state.people), Plan(ALL_UNKNOWNS, Parts()), scheduler.robust(1.0)
        )
        costs.append(float(fit.person_costs(state)["contour"]))
        uncovered.append(float(fit.matches.uncovered))
    assert uncovered[0] < 0.002
    assert uncovered[1] > 0.03
    # Every uncovered share of the mask costs that share of all pairs, each at its kernel's limit.
    pairs = 2 * config.contour.points
    assert costs[1] - costs[0] > 0.9 * uncovered[1] * pairs * config.contour.robust_sigmas**2 / 2


def test_knees_and_elbows_bend_one_way(body: Body) -> None:
    pose = torch.eye(3, dtype=torch.float64).repeat(4, 23, 1, 1)
    turns = {"left_knee": (0, 1.0), "right_knee": (0, 1.0), "left_elbow": (1, -1.0), "right_elbow": (1, 1.0)}
    for row, sign in ((0, 1.0), (1, -1.0)):
        for name, (axis, natural) in turns.items():
            turn = torch.zeros(3, dtype=torch.float64)
            turn[axis] = sign * natural
            pose[row, JOINT_INDEX[name] - 1] = so3.exp(turn)
    found = bends_naturally(body, pose)
    assert found[0].all()
    assert not found[1].any()
    assert found[2:].all()


@pytest.mark.parametrize("category", ["everyday", "hard"])
def test_recorded_people_bend_naturally(body: Body, category: str) -> None:
    poses = load_pose_library(category).body.double()
    hands = torch.eye(3, dtype=torch.float64).expand(len(poses), 2, 3, 3)
    assert bends_naturally(body, torch.cat([poses, hands], 1)).all()
