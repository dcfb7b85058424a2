"""What a fit promises as a whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.errors import DepthfitError
from depthfit.fit import FitConfig, FitStatus, Fitter, PersonFit
from depthfit.tokens.load import load_tokenizer
from tests.fit.scenes import FOCAL, exact_config, exact_image


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body("open").to(dtype=torch.float64)


def _quick() -> FitConfig:
    config = exact_config()
    config.solver.rounds, config.solver.steps, config.solver.grid = 4, 2, 64
    config.depth.samples = 150
    return config


def test_noiseless_evidence_gives_the_truth_back(body: Body) -> None:
    """The root is off by 0.1 rad and the focal by 15 %; the pose may move but is predicted right.

    Starts in the truth's basin: of the first three seeds, 0 ends in another minimum, 6 mm away.
    """
    images, truths = zip(*[exact_image(body, seed, turn=0.0) for seed in (1, 2)], strict=True)
    config = exact_config(pose_sigma=0.1)
    config.solver.rounds = 20  # to the very minimum, for which a fit of noisy evidence has no use
    results = Fitter(body, None, config).fit(list(images))
    for (fit,), truth in zip(results, truths, strict=True):
        error = np.linalg.norm(fit.refined.joints - truth["joints"].numpy(), axis=-1)
        assert error.mean() < 1e-3
        assert fit.refined.focal == pytest.approx(FOCAL, rel=1e-3)


def test_a_wrong_pose_is_mended(body: Body) -> None:
    """Joints 0.06 rad off each axis, hardly any prior: wrists and twists of thin limbs are seen least."""
    images, truths = zip(*[exact_image(body, seed, turn=0.06) for seed in (0, 1)], strict=True)
    results = Fitter(body, None, exact_config()).fit(list(images))
    for (fit,), truth in zip(results, truths, strict=True):
        joints = truth["joints"].numpy() - truth["joints"][0].numpy()
        before, after = (
            np.linalg.norm(b.joints - b.joints[:1] - joints, axis=-1).mean()
            for b in (fit.initial, fit.refined)
        )
        assert after < 0.4 * before


def _same(a: PersonFit, b: PersonFit, tolerance: float) -> None:
    assert a.status == b.status
    assert np.allclose(a.refined.joints, b.refined.joints, atol=tolerance)
    assert a.refined.focal == pytest.approx(b.refined.focal, rel=tolerance)


def test_batch_of_three_equals_three_solo_fits(body: Body) -> None:
    images = [exact_image(body, seed)[0] for seed in (2, 3, 4)]
    fitter = Fitter(body, None, _quick())
    for together, image in zip(fitter.fit(images), images, strict=True):
        _same(together[0], fitter.fit([image])[0][0], 1e-6)


def test_a_nan_person_leaves_the_rest_unchanged(body: Body) -> None:
    images = [exact_image(body, seed)[0] for seed in (2, 3)]
    bad = dataclasses.replace(images[0].people[0], betas=torch.full((10,), torch.nan))
    poisoned = dataclasses.replace(images[0], people=[bad])
    fitter = Fitter(body, None, _quick())
    clean, mixed = fitter.fit(images), fitter.fit([poisoned, images[1]])
    assert mixed[0][0].status == FitStatus.SOLVER
    assert not mixed[0][0].accepted
    _same(mixed[1][0], clean[1][0], 1e-9)


def test_people_of_one_image_share_its_camera(body: Body) -> None:
    image, _ = exact_image(body, 5)
    two = dataclasses.replace(image, people=[image.people[0], image.people[0]])
    first, second = Fitter(body, None, _quick()).fit([two])[0]
    assert first.refined.focal == second.refined.focal
    assert first.refined.focal != pytest.approx(np.exp(image.log_focal), rel=1e-3)


def test_refused_fit_keeps_the_predicted_pose(body: Body) -> None:
    config = _quick()
    config.verdict.use, config.verdict.max_prior_rms = True, 1e-9
    image, _ = exact_image(body, 6)
    (fit,) = Fitter(body, None, config).fit([image])[0]
    assert fit.status == FitStatus.FAR_FROM_PRIOR
    assert not fit.accepted
    assert np.allclose(fit.refined.pose, image.people[0].pose.numpy())
    assert np.allclose(fit.refined.root, image.people[0].root.numpy())
    assert fit.refined.transl[2] < 6


def test_frozen_focal_stays(body: Body) -> None:
    config = _quick()
    config.camera.freeze_focal = True
    image, _ = exact_image(body, 6)
    (fit,) = Fitter(body, None, config).fit([image])[0]
    assert fit.refined.focal == pytest.approx(np.exp(image.log_focal), rel=1e-9)


def test_known_height_is_met(body: Body) -> None:
    config = _quick()
    config.depth.use = False
    config.body.height_m, config.body.height_sigma_m = 1.9, 0.005
    image, _ = exact_image(body, 7)
    (fit,) = Fitter(body, None, config).fit([image])[0]
    vertices = body.rest_vertices(torch.from_numpy(fit.refined.betas)[None])[0, :, 1]
    assert float(vertices.max() - vertices.min()) == pytest.approx(1.9, abs=0.02)


def test_tokens_need_a_tokenizer(body: Body) -> None:
    config = FitConfig()
    config.pose.space = "tokens"
    with pytest.raises(DepthfitError, match="tokenizer"):
        Fitter(body, None, config).fit([exact_image(body, 0)[0]])


def test_who_comes_without_token_probabilities_leaves_the_others_theirs() -> None:
    tokenizer, config = load_tokenizer(), FitConfig()
    config.pose.space = "tokens"
    images = []
    for seed in (2, 3):
        image, _ = exact_image(load_body(), seed)
        (person,) = image.people
        latents = tokenizer.encode(so3.to_6d(person.pose[None, :21]))[0]
        sure = torch.softmax(-(torch.cdist(latents, tokenizer.codebook) ** 2), -1) if seed == 2 else None
        told = dataclasses.replace(person, token_probabilities=sure)
        images.append(dataclasses.replace(image, people=[told]))
    fitter = Fitter(load_body(), tokenizer, config)
    charts = []
    for some in (images, images[:1], images[1:]):
        scheduler = fitter.scheduler(some)
        charts.append(scheduler.space.chart(scheduler.start().people).basis)
    together, told, flat = charts
    # Columns are eigenvectors: their products have no sign.
    torch.testing.assert_close(together[:1] @ together[:1].mT, told @ told.mT, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(together[1:] @ together[1:].mT, flat @ flat.mT, rtol=1e-3, atol=1e-5)
    assert (told @ told.mT - flat @ flat.mT).abs().max() > 1e-3
