"""From evidence to a fit's input: whose pixels and edges are whose where there are no masks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.evidence.cameras import CameraPrior, depth_camera, prior_camera
from depthfit.evidence.keypoints import KeypointPerson
from depthfit.evidence.scene import ImageEvidence
from depthfit.fit import FitConfig, Fitter, adapter
from depthfit.fit.adapter import EvidenceMaps, Prediction, image_input
from depthfit.fit.inputs import PersonInput
from depthfit.fit.space import RotationSpace
from tests.perception.capsules import FOCAL, HEIGHT, WIDTH, as_map, background, stand


def _evidence() -> tuple[ImageEvidence, list[np.ndarray]]:
    """Two people of whom the nearer (the second) hides a part of the farther, and their pixels."""
    depth = background()
    far, far_pixels = stand(depth, 0.0, 4.0)
    near, near_pixels = stand(depth, 0.3, 3.2)
    camera = CameraPrior(FOCAL, 0.2, ((WIDTH - 1) / 2, (HEIGHT - 1) / 2), "test")
    evidence = ImageEvidence(
        "a", Path("a.png"), (WIDTH, HEIGHT), (far, near), as_map(depth), None, camera, np.arange(2), None, ()
    )
    return evidence, [far_pixels & ~near_pixels, near_pixels]


def _predictions(people: tuple[KeypointPerson, ...]) -> list[Prediction]:
    eye = torch.eye(3)
    return [
        Prediction(
            k, k, eye, eye.repeat(23, 1, 1), torch.zeros(10), torch.tensor([0, 0, 3.0]), FOCAL, None, person
        )
        for k, person in enumerate(people, 1)
    ]


def _windows(evidence: ImageEvidence, config: FitConfig) -> list[np.ndarray]:
    """For each person (3, cells): whether a cell of their window counts as theirs, its row and its column."""
    found = image_input(evidence, _predictions(evidence.people), config)
    window = Fitter(load_body("open"), None, config).scheduler([found]).batch.window
    shares = []
    for k in range(len(found.people)):
        axis = torch.arange(config.solver.grid) * window.step[k]
        x, y = ((window.origin[k, c] + axis).round().long() for c in (0, 1))
        inside = window.inside[k]
        rows, columns = (v[inside].numpy() for v in torch.meshgrid(y, x, indexing="ij"))
        shares.append(np.stack([window.own[k][inside].numpy(), rows, columns]))
    return shares


def _config(contour: str) -> FitConfig:
    config = FitConfig()
    config.contour.source = contour
    return config


def test_pixels_of_somebody_else_are_not_anybodys_depth() -> None:
    evidence, truth = _evidence()
    for k, (own, rows, columns) in enumerate(_windows(evidence, _config("none"))):
        mine, theirs = truth[k][rows, columns], truth[1 - k][rows, columns]
        assert theirs.sum() > 50
        assert own[mine].mean() > 0.95
        assert own[theirs].mean() < 0.15
        # Nothing says of the rest that it is not a part of the person.
        rest = ~mine & ~theirs
        assert own[rest].mean() > 0.9


def test_edges_of_somebody_else_are_not_anybodys_outline() -> None:
    evidence, truth = _evidence()
    config = _config("depth")
    found = image_input(evidence, _predictions(evidence.people), config)
    everything = [
        image_input(evidence, _predictions(evidence.people)[k : k + 1], config).people[0] for k in range(2)
    ]
    for k, (person, alone) in enumerate(zip(found.people, everything, strict=True)):
        assert person.outline is not None
        assert alone.outline is not None
        on = [_near(outline.xy.numpy(), truth[1 - k]) for outline in (person.outline, alone.outline)]
        assert len(person.outline.xy) > 40
        assert on[1] > 30
        assert on[0] < 0.35 * on[1]


def test_a_focal_in_millimetres_is_refused() -> None:
    evidence, _ = _evidence()
    config = _config("none")
    config.camera.focal_px = 0.1 * max(evidence.size)
    with pytest.raises(InputError, match=r"camera\.focal_px: .* for an image of"):
        image_input(evidence, [], config)
    config.camera.focal_px = 0.3 * max(evidence.size)
    assert image_input(evidence, [], config).log_focal == pytest.approx(np.log(config.camera.focal_px))


def test_a_focal_that_nothing_tells_is_not_held() -> None:
    evidence, _ = _evidence()
    size, config = evidence.size, _config("none")
    unknown = replace(evidence, camera=prior_camera(size))
    assert image_input(unknown, [], config).log_focal == pytest.approx(np.log(prior_camera(size).focal_px))
    config.camera.freeze_focal = True
    with pytest.raises(InputError) as caught:
        image_input(unknown, [], config)
    assert (caught.value.source, caught.value.field) == ("a.png", "camera.freeze_focal")
    for way in ("cameras.json", "EXIF", "depth file", "camera.focal_px"):
        assert way in caught.value.fix
    estimated = image_input(replace(evidence, camera=depth_camera(321.0, size)), [], config)
    assert estimated.log_focal == pytest.approx(np.log(321.0))
    config.camera.source = "regressor"
    assert image_input(unknown, [], config).log_focal == pytest.approx(np.log(5000 / 256 * max(size)))
    config.camera.source, config.camera.focal_px = "evidence", 456.0
    assert image_input(unknown, [], config).log_focal == pytest.approx(np.log(456.0))


def test_one_person_is_not_looked_for_in_the_depth_map() -> None:
    evidence, _ = _evidence()
    found = image_input(evidence, _predictions(evidence.people)[:1], _config("none"))
    assert found.labels is None
    assert found.people[0].label is None


@pytest.mark.parametrize(("population", "weights"), [("auto", [1, 0]), ("gaussian", [1, 1])])
def test_who_comes_with_an_error_of_their_own_is_not_held_to_motion_capture(
    population: str, weights: list[int]
) -> None:
    evidence, _ = _evidence()
    regressed, from_keypoints = _predictions(evidence.people)
    from_keypoints = replace(from_keypoints, pose_sigma=0.3)
    config = _config("none")
    config.pose.population = population
    found = image_input(evidence, [regressed, from_keypoints], config)
    scheduler = Fitter(load_body("open"), None, config).scheduler([found])
    state = scheduler.start()
    costs = scheduler.full_problem(state).person_costs(state)["population"]
    assert scheduler.batch.person_prior.population.tolist() == weights
    assert (costs > 0).tolist() == [w > 0 for w in weights]


@pytest.mark.parametrize(
    ("told", "wanted", "factors"),
    [
        ({"usual_entropy": 1.0}, {}, (math.exp(0.48 * 0.5), math.exp(-0.48 * 0.5))),
        ({"usual_entropy": 1.0}, {"entropy_gain": 0.2}, (math.exp(0.2 * 0.5), math.exp(-0.2 * 0.5))),
        ({"usual_entropy": 1.0}, {"usual_entropy": 1.5}, (1.0, math.exp(-0.48))),
        ({}, {"usual_entropy": 0.5}, (math.exp(0.48), 1.0)),
        ({}, {}, (1.0, 1.0)),
        ({"usual_entropy": 1.0}, {"entropy_gain": 5.0}, (2.0, 0.5)),
        ({"usual_entropy": 1.0}, {"space": "tokens"}, (1.0, 1.0)),
    ],
)
def test_predictions_of_unsure_tokens_have_wider_priors(
    told: dict[str, float], wanted: dict[str, Any], factors: tuple[float, float]
) -> None:
    evidence, _ = _evidence()
    unsure, sure = _predictions(evidence.people)
    people = [replace(unsure, token_entropy=1.5, **told), replace(sure, token_entropy=0.5, **told)]
    config = _config("none")
    for name, value in wanted.items():
        setattr(config.pose, name, value)
    found = image_input(evidence, people, config)
    assert [p.pose_factor for p in found.people] == pytest.approx(factors)
    if config.pose.space == "tokens":
        return
    scheduler = Fitter(load_body("open"), None, config).scheduler([found])
    plain = image_input(evidence, _predictions(evidence.people), config)
    usual = Fitter(load_body("open"), None, config).scheduler([plain])
    assert isinstance(scheduler.space, RotationSpace)
    assert isinstance(usual.space, RotationSpace)
    scale = torch.tensor(factors)[:, None, None]
    torch.testing.assert_close(scheduler.space.scale, scale * usual.space.scale)
    # They are a regressor's all the same.
    assert scheduler.batch.person_prior.population.tolist() == [1, 1]


def test_a_shape_that_nobody_predicted_has_the_populations_prior() -> None:
    evidence, _ = _evidence()
    config = _config("none")
    drawn = torch.linspace(-2, 2, 10)
    told, unknown = (replace(p, betas=drawn) for p in _predictions(evidence.people))
    unknown = replace(unknown, betas=torch.zeros(10), betas_sigma=math.inf)
    assert told.has_betas
    assert not unknown.has_betas
    found = image_input(evidence, [told, unknown], config)
    prior = Fitter(load_body("open"), None, config).scheduler([found]).batch.person_prior
    # The product of the population's unit normal with one about the predicted betas.
    own = config.body.betas_sigma**-2
    torch.testing.assert_close(prior.betas[0, :10], drawn * own / (1 + own))
    torch.testing.assert_close(prior.betas_sigma[0, :10], torch.full((10,), (1 + own) ** -0.5))
    assert not prior.betas[1].any()
    assert (prior.betas_sigma[1] == 1).all()


def _near(points: np.ndarray, pixels: np.ndarray) -> int:
    """How many points lie on ``pixels``; those beyond the image count at its border."""
    x, y = points.round().astype(int).T
    inner = pixels[y.clip(2, HEIGHT - 3), x.clip(2, WIDTH - 3)]
    return int(inner.sum())


def test_maps_of_an_image_are_made_once_for_all_that_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(name: str) -> None:
        function = getattr(adapter, name)

        def call(*arguments: object) -> object:
            made.append(name)
            return function(*arguments)

        monkeypatch.setattr(adapter, name, call)

    for name in ("valid_mask", "depth_edges", "depth_masks"):
        counted(name)
    evidence, _ = _evidence()
    people = _predictions(evidence.people)
    maps = EvidenceMaps.of(evidence, people)
    wider = _config("auto")
    wider.depth.erode_px = 7
    for config in (_config("auto"), _config("depth"), _config("none"), wider):
        image_input(evidence, people, config, maps)
    assert sorted(made) == ["depth_edges", "depth_masks", "valid_mask", "valid_mask"]
    kept = [image_input(evidence, people, config, maps).depth_valid for config in (wider, _config("auto"))]
    assert kept[0] is not None
    assert kept[1] is not None
    assert kept[0].sum() < kept[1].sum(), "each erosion has a mask of its own"


def test_a_stray_point_stretches_nothing_beyond_half_an_image() -> None:
    """People who are cut off have points outside the image; what is farther out than that says no size."""
    evidence, _ = _evidence()
    person = evidence.people[0]

    def person_input(x: float) -> PersonInput:
        xy = person.xy.copy()
        xy[int(person.found.argmax())] = [x, HEIGHT / 2]
        moved = replace(evidence, people=(replace(person, xy=xy),))
        return image_input(moved, _predictions(moved.people), _config("depth")).people[0]

    at_end, stray = person_input(1.5 * WIDTH), person_input(3 * WIDTH)
    assert stray.box[2] == 1.5 * WIDTH
    assert torch.equal(stray.box, at_end.box)
    assert torch.equal(stray.keypoint_sigma, at_end.keypoint_sigma)
    assert at_end.outline is not None
    assert stray.outline is not None
    assert torch.equal(stray.outline.xy, at_end.outline.xy)
