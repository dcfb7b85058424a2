"""The simulated regressor: its errors, its camera, its tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from baselines.predictions import USUAL_ENTROPY
from depthfit import camera as pinhole
from depthfit import so3
from depthfit.evaluation import metrics
from depthfit.evidence.predictions import SIMULATED
from depthfit.fit.config import PoseConfig
from depthfit.joints import JOINT_INDEX, NUM_JOINTS, descendants
from depthfit.synth.config import PredictionNoise
from depthfit.synth.predict import JOINT_SHARE, LIMBS, code_probabilities, flip_limb, predict
from depthfit.tokens.load import load_tokenizer
from depthfit.tokens.vqvae import Tokenizer

SILENT = PredictionNoise(
    pose_rad=0, root_rad=0, view_bias=0, betas=0, spread=0, flipped=0, scale=0, shift=0, box=0
)


def _predict(studio, image, noise):
    rng = np.random.default_rng(0)
    return predict(rng, image.world.people, image.world.camera, studio.body, None, noise)


def _project(studio, image, p):
    """Keypoints of predictions through the regressor's camera, by the formula of its own code."""
    size = torch.tensor(image.world.camera.size, dtype=torch.float32)
    focal = pinhole.regressor_focal(*image.world.camera.size)
    transl = pinhole.full_image_translation(
        torch.as_tensor(p.pred_cam, dtype=torch.float32), torch.as_tensor(p.box_center, dtype=torch.float32),
        torch.as_tensor(p.box_size, dtype=torch.float32), size, focal,
    )  # fmt: skip
    skeleton, vertices = studio.body.forward(p.root, p.pose, p.betas)
    points = studio.body.keypoints(skeleton, vertices) + transl[:, None]
    K = pinhole.intrinsics(focal, pinhole.image_center(*image.world.camera.size))
    return pinhole.project(points, K).numpy(), transl


def _true(image):
    return np.stack([pinhole.project(p.keypoints, image.world.camera.K) for p in image.world.people])


def test_without_noise_the_truth_comes_back(studio, images):
    p = _predict(studio, images[0], SILENT)
    people = images[0].world.people
    torch.testing.assert_close(p.root, torch.stack([q.person.root for q in people]))
    torch.testing.assert_close(p.pose, torch.stack([q.person.pose for q in people]))
    torch.testing.assert_close(p.betas, torch.stack([q.person.betas for q in people]))


def test_crop_camera_lays_the_prediction_over_the_person(studio, images):
    far = [i for i in images if all(q.transl[2] > 4 for q in i.world.people)]
    errors: dict[float, list[float]] = {0.0: [], 1.0: []}
    for image in far:
        for bias, found in errors.items():
            p = _predict(studio, image, dataclasses.replace(SILENT, view_bias=bias))
            points, transl = _project(studio, image, p)
            found.extend(metrics.reprojection_error(points, _true(image)))
            assert (transl[:, 2] > 10).all()
    # What is left is perspective, and shape that the body does not have. Turning the root as a crop shows it
    # takes most of the perspective away.
    assert np.median(errors[0.0]) < 0.03
    assert np.mean(errors[1.0]) < 0.7 * np.mean(errors[0.0])
    assert np.max(errors[1.0]) < 0.05


def test_crop_camera_is_the_best_one(studio, images):
    image = images[0]
    p = _predict(studio, image, SILENT)

    def cost(change: np.ndarray) -> np.ndarray:
        points, _ = _project(studio, image, dataclasses.replace(p, pred_cam=p.pred_cam + change))
        return ((points - _true(image)) ** 2).sum((1, 2))

    best = cost(np.zeros(3))
    for axis in range(3):
        for step in (-0.01, 0.01):
            assert (cost(step * np.eye(3)[axis]) > best).all()


def test_camera_noise_has_its_size(studio, images):
    noise = dataclasses.replace(SILENT, scale=0.02)
    ratios = []
    clean = [_predict(studio, image, SILENT).pred_cam[:, 0] for image in images]
    for seed in range(20):
        for image, s in zip(images, clean, strict=True):
            rng = np.random.default_rng(seed + 1)
            p = predict(rng, image.world.people, image.world.camera, studio.body, None, noise)
            ratios.extend(np.log(p.pred_cam[:, 0] / s))
    assert np.std(ratios) == pytest.approx(0.02, rel=0.2)


def test_boxes_hold_the_person(images):
    for image in images:
        p = image.predictions
        for placed, center, side in zip(image.world.people, p.box_center, p.box_size, strict=True):
            points = pinhole.project(placed.joints, image.world.camera.K).numpy()
            limit = np.array(image.world.camera.size) - 1
            inside = (np.abs(np.clip(points, 0, limit) - center) < 0.6 * side).all(-1)
            assert inside.mean() > 0.9


def test_rotation_noise_by_joint(studio, images):
    """Errors have the asked spread, larger at the ends of limbs, and right multiply the truth."""
    noise = dataclasses.replace(SILENT, pose_rad=0.1, root_rad=0.2, spread=0.25)
    image = images[0]
    person = image.world.people[0].person
    errors = []
    for seed in range(300):
        p = predict(
            np.random.default_rng(seed), image.world.people[:1], image.world.camera, studio.body, None, noise
        )
        errors.append(
            torch.cat([so3.log(person.root.mT @ p.root[0])[None], so3.log(person.pose.mT @ p.pose[0])])
        )
    sd = torch.stack(errors).square().mean((0, 2)).sqrt().numpy()
    expected = np.concatenate([[0.2], 0.1 * JOINT_SHARE[1:]])
    np.testing.assert_allclose(sd, expected, rtol=0.25)
    wrist, spine = JOINT_INDEX["left_wrist"], JOINT_INDEX["spine2"]
    assert 1.5 <= JOINT_SHARE[wrist] / JOINT_SHARE[spine] <= 2


def test_a_flipped_limb_looks_the_same_from_afar(studio):
    rng = np.random.default_rng(3)
    pose = so3.exp(torch.as_tensor(0.5 * rng.normal(size=(23, 3)), dtype=torch.float32))
    root = so3.exp(torch.tensor([0.3, 2.0, 0.1]))
    betas = torch.zeros(studio.body.num_betas)
    before = studio.body.skeleton(root, pose, betas)
    for limb in LIMBS:
        after = studio.body.skeleton(root, flip_limb(before.rotation, before.position, pose, limb), betas)
        joints = [JOINT_INDEX[name] for name in limb]
        a = before.position[joints] - before.position[joints[0]]
        b = after.position[joints] - after.position[joints[0]]
        torch.testing.assert_close(b, a * torch.tensor([1.0, 1.0, -1.0]), atol=1e-5, rtol=0)
        others = sorted(set(range(NUM_JOINTS)) - set(descendants()[joints[0]]))
        torch.testing.assert_close(after.position[others], before.position[others])


def test_flips_happen_as_often_as_asked(studio, images):
    noise = dataclasses.replace(SILENT, flipped=0.3)
    image = images[0]
    person = image.world.people[0].person
    flipped = 0
    for seed in range(200):
        p = predict(
            np.random.default_rng(seed), image.world.people[:1], image.world.camera, studio.body, None, noise
        )
        flipped += bool((p.pose[0] - person.pose).abs().max() > 1e-4)
    assert flipped / 200 == pytest.approx(0.3, abs=0.1)


def test_token_probabilities_are_flatter_where_errors_are_larger():
    torch.manual_seed(0)
    tokenizer = Tokenizer(width=16).eval()
    pose = so3.exp(0.3 * torch.randn(2, 21, 3))
    with torch.no_grad():
        latents = tokenizer.encode(so3.to_6d(pose))
        picked = latents.flatten(0, 1)
        tokenizer.codebook.copy_(picked.repeat(7, 1)[:2048] + 0.3 * picked.std() * torch.randn(2048, 256))
        sd = np.full((2, 21), 0.1)
        sd[0, 18:] = 0.4
        noise = PredictionNoise(pose_rad=0.1)
        p = code_probabilities(pose, sd, tokenizer, noise)
    assert p.shape == (2, 160, 2048)
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 160))
    entropy = -(p * p.clamp(min=1e-12).log()).sum(-1)
    assert entropy[0, 145:].mean() > entropy[1, 145:].mean() + 0.3
    torch.testing.assert_close(entropy[0, :100], entropy[1, :100], atol=3.0, rtol=0)


def test_entropies_tell_errors_as_a_fit_takes_them_to(studio, images):
    """The log of a prediction's error grows with its entropy as ``pose.entropy_gain`` says, about the usual
    entropy: six predictions of each of 22 people."""
    tokenizer, entropies, errors = load_tokenizer(), [], []
    for seed in range(6):
        for image in images:
            people = image.world.people
            rng = np.random.default_rng(seed)
            p = predict(rng, people, image.world.camera, studio.body, tokenizer, PredictionNoise())
            entropies.append(torch.special.entr(torch.from_numpy(p.token_probs).float()).sum(-1).mean(-1))
            true = torch.stack([q.person.pose for q in people])[:, :21]
            angle = so3.log(true.mT @ p.pose[:, :21])
            errors.append(angle.square().sum(-1).mean(-1).sqrt().log())
    entropy, error = torch.cat(entropies).numpy(), torch.cat(errors).numpy()
    assert np.median(entropy) == pytest.approx(USUAL_ENTROPY[SIMULATED], abs=0.2)
    assert np.polyfit(entropy, error, 1)[0] == pytest.approx(PoseConfig().entropy_gain, abs=0.12)


def test_predictions_are_as_good_as_published_ones(studio, images, capsys):
    """The default level is that of TokenHMR on hard footage: MPJPE about 90, PA-MPJPE about 57 mm."""
    people = [placed for image in images for placed in image.world.people]
    true = torch.stack([q.person.skeleton.position for q in people]).numpy()
    rows = [image.predictions for image in images]
    predicted = torch.cat([studio.body.skeleton(p.root, p.pose, p.betas).position for p in rows]).numpy()
    error, aligned = metrics.mpjpe(predicted, true), metrics.pa_mpjpe(predicted, true)
    with capsys.disabled():
        print(f"\nprediction: MPJPE {error.mean():.1f} mm, PA {aligned.mean():.1f} mm, {len(error)} people")
    assert 70 < error.mean() < 115
    assert 42 < aligned.mean() < 72
