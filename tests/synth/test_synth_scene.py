"""Worlds and pictures: geometry that can be checked from the outside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from depthfit import camera as pinhole
from depthfit.errors import DepthfitError, InputError
from depthfit.joints import JOINT_INDEX, KEYPOINTS
from depthfit.raster import rasterize
from depthfit.synth import SynthConfig
from depthfit.synth.generate import make_image
from depthfit.synth.scene import sample_camera, scaled_intrinsics

HEAD, ANKLE = JOINT_INDEX["head"], JOINT_INDEX["left_ankle"]


def _people(images):
    return [(image, placed) for image in images for placed in image.world.people]


def test_cameras_are_as_asked():
    rng = np.random.default_rng(0)
    config = SynthConfig(roll_degrees=0.0)
    for _ in range(50):
        camera = sample_camera(rng, config)
        fov = np.degrees(2 * np.arctan(config.width / 2 / camera.focal))
        assert 30 <= fov <= 80
        torch.testing.assert_close(camera.K[:2, 2], torch.tensor([639.5, 479.5]))
        # Up points to smaller y; a camera that looks down has the up direction lean towards it.
        pitch = np.degrees(np.arctan2(-float(camera.up[2]), -float(camera.up[1])))
        assert -10 <= pitch <= 30


def test_a_person_who_faces_a_level_camera_is_not_mirrored(studio):
    config = SynthConfig(pitch_degrees=(0.0, 0.0), roll_degrees=0.0)
    camera = sample_camera(np.random.default_rng(0), config)
    skeleton, _ = studio.body.forward(
        camera.T_camera_world[None], torch.eye(3).expand(1, 23, 3, 3), torch.zeros(1, studio.body.num_betas)
    )
    joints = skeleton.position[0]
    assert joints[JOINT_INDEX["left_shoulder"], 0] > 0.1
    assert joints[HEAD, 1] < joints[0, 1] - 0.3 < joints[0, 1] < joints[ANKLE, 1] - 0.5
    assert joints[JOINT_INDEX["left_foot"], 2] < joints[ANKLE, 2]


def test_everyday_people_stand_on_the_ground(images):
    seen = 0
    for image, placed in _people(images):
        above = placed.clothed @ image.world.camera.up + image.world.height
        assert above.min() > -2e-3
        if placed.person.kind == "everyday":
            seen += 1
            assert above.min() < 2e-3
            joints = placed.joints @ image.world.camera.up
            assert joints[HEAD] > joints[0] - 0.2
    assert seen >= 3


def test_people_fit_the_frame_and_keep_their_distance(images):
    for image, placed in _people(images):
        points = pinhole.project(placed.joints, image.world.camera.K)
        inside = ((points >= 0) & (points <= torch.tensor(image.world.camera.size) - 1)).all(-1)
        assert inside.float().mean() >= 0.9
        assert 1.2 <= placed.transl[2] <= 8.0 or len(image.world.people) > 1
    for image in images:
        trees = [cKDTree(p.clothed[::7].numpy()) for p in image.world.people]
        for i, tree in enumerate(trees):
            assert all(tree.query(other.data)[0].min() > 0.05 for other in trees[:i])


def test_nobody_is_hidden(images):
    shares = np.concatenate([image.picture.unhidden for image in images])
    assert shares.min() > 0.45
    assert (shares < 0.98).any()


def test_depth_is_that_of_the_surface(studio, images):
    """At every pixel of a person the exact depth is the rasteriser's, drawn in one piece."""
    image = images[0]
    camera, picture = image.world.camera, image.picture
    vertices = torch.stack([p.clothed for p in image.world.people])
    whole = rasterize(vertices, studio.body.faces, camera.K.expand(len(vertices), 3, 3), picture.depth.shape)
    nearest, who = whole.depth.min(0)
    covered = torch.isfinite(nearest).numpy()
    differ = covered & (np.abs(picture.depth - nearest.numpy()) > 1e-3)
    assert differ.sum() <= 0.002 * covered.sum()
    same = (picture.labels == np.where(covered, who.numpy() + 1, 0)).mean()
    assert same > 0.999


def test_the_floor_is_a_plane_and_walls_are_behind_everybody(images):
    image = images[0]
    camera, picture = image.world.camera, image.picture
    rows, columns = np.nonzero(picture.labels == 0)
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(camera.K.double().numpy()).T
    points = rays * picture.depth[rows, columns][:, None]
    above = points @ camera.up.double().numpy() + image.world.height
    assert above.min() > -1e-3
    assert (np.abs(above) < 1e-3).mean() > 0.05
    assert np.isfinite(picture.depth).all()


def test_visible_keypoints_are_on_their_person(images):
    on, total = 0, 0
    for image in images:
        for k, placed in enumerate(image.world.people, start=1):
            points = pinhole.project(placed.keypoints, image.world.camera.K).round().long().numpy()
            for x, y in points[image.picture.visible[k - 1]]:
                on += image.picture.labels[y, x] == k
                total += 1
    assert total > 100
    assert on / total > 0.9


def test_detected_points_follow_the_true_ones(images):
    errors = []
    for image in images:
        rows = [KEYPOINTS.index(n) for n in ("left_shoulder", "right_shoulder")]
        for placed, found in zip(image.world.people, image.keypoints, strict=True):
            true = pinhole.project(placed.keypoints[rows], image.world.camera.K).numpy()
            errors.extend(np.linalg.norm(found[[5, 6], :2] - true, axis=-1))
    assert np.median(errors) < 4


def test_images_depend_on_seed_and_number_alone(studio, images):
    config = SynthConfig(
        seed=1, images=12, token_probs=False, people_weights=(1, 1, 1), width=320, height=240
    )
    again = make_image(config, studio, 3)
    np.testing.assert_array_equal(again.picture.image, images[3].picture.image)
    np.testing.assert_array_equal(again.depth, images[3].depth)
    np.testing.assert_array_equal(again.keypoints, images[3].keypoints)
    other = make_image(dataclasses.replace(config, seed=2), studio, 3)
    assert (other.picture.image != images[3].picture.image).any()


def test_a_noise_level_leaves_the_world_alone(studio, images):
    config = SynthConfig(
        seed=1, images=12, token_probs=False, people_weights=(1, 1, 1), width=320, height=240
    )
    config.noise.keypoint_factor = 0.0
    again = make_image(config, studio, 3)
    np.testing.assert_array_equal(again.picture.image, images[3].picture.image)
    np.testing.assert_array_equal(again.depth, images[3].depth)
    assert (again.keypoints != images[3].keypoints).any()


def test_intrinsics_of_a_resampled_image():
    """Both cameras see the image's corners, half a pixel beyond the corner pixels, along one ray."""
    K = pinhole.intrinsics(torch.tensor(500.0), pinhole.image_center(640, 480))
    small = scaled_intrinsics(K, 0.25)
    for full, shrunk in (((-0.5, -0.5), (-0.5, -0.5)), ((639.5, 479.5), (159.5, 119.5))):
        a = torch.linalg.solve(K, torch.tensor([*full, 1.0]))
        b = torch.linalg.solve(small, torch.tensor([*shrunk, 1.0]))
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 0},
        {"fov_degrees": (80.0, 30.0)},
        {"keypoint_format": "coco18"},
        {"pose_mix": (0.0, 0.0, 0.0)},
        {"pitch_degrees": (-80.0, 0.0)},
    ],
)
def test_bad_settings_are_named(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        SynthConfig(**changes).validate()


def test_no_room_for_people_is_said(studio):
    config = SynthConfig(
        fov_degrees=(30.0, 30.0), distance_m=(0.5, 0.5), token_probs=False, width=320, height=240
    )
    with pytest.raises(DepthfitError, match="Widen fov_degrees"):
        make_image(config, studio, 0)
