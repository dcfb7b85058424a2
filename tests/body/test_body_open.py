"""The shipped open body is SMPL-like: frame, T pose, left and right, people of plausible size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.asset import ASSET, GENDERS, read_asset
from depthfit.body.load import load_body, load_extra_shapedirs
from depthfit.body.model import Body
from depthfit.errors import InputError
from depthfit.joints import COCO17, JOINT_INDEX, KEYPOINTS, NUM_JOINTS, descendants, mirror_name

MAX_SIZE_BYTES = 4_000_000
STATURE_M = {"male": (1.70, 1.82), "female": (1.56, 1.68), "neutral": (1.63, 1.75)}


@pytest.fixture(scope="module", params=GENDERS)
def body(request: pytest.FixtureRequest) -> Body:
    return load_body("open", request.param)


def random_shapes(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))


def rest_state(body: Body, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Joints, vertices and keypoints of the T pose, pelvis at the origin."""
    eye = torch.eye(3).expand(len(betas), NUM_JOINTS, 3, 3)
    skeleton, vertices = body.forward(eye[:, 0], eye[:, 1:], betas)
    return skeleton.position, vertices, body.keypoints(skeleton, vertices)


def turned(joint: str, axis: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Root and pose with one joint turned by a rotation vector."""
    rotations = torch.eye(3).repeat(1, NUM_JOINTS, 1, 1)
    rotations[:, JOINT_INDEX[joint]] = so3.exp(torch.tensor([axis]))
    return rotations[:, 0], rotations[:, 1:]


def stature(body: Body, betas: Tensor) -> Tensor:
    height = body.rest_vertices(betas)[..., 1]
    return height.amax(-1) - height.amin(-1)


def test_file_is_small_and_credited() -> None:
    assert sum(path.stat().st_size for path in ASSET.parent.glob("open_body*")) <= MAX_SIZE_BYTES
    credit = read_asset().credit
    assert "CC0" in credit
    assert "MakeHuman" in credit
    assert "Anny" in (ASSET.parent / "CREDITS.md").read_text()


def test_sizes_and_sums(body: Body) -> None:
    assert body.v_template.shape == (13718, 3)
    assert body.faces.shape == (27420, 3)
    assert body.shapedirs.shape == (13718, 3, 10)
    assert body.posedirs is None
    assert body.weights.min() >= 0
    torch.testing.assert_close(body.weights.sum(1), torch.ones(13718), atol=1e-6, rtol=0)
    torch.testing.assert_close(body.joint_regressor.sum(1), torch.ones(NUM_JOINTS), atol=1e-5, rtol=0)
    total = body.keypoint_regressor.sum(1) + body.keypoint_joint.sum(1)
    torch.testing.assert_close(total, torch.ones(len(KEYPOINTS)), atol=1e-5, rtol=0)
    assert (body.weights.amax(0) > 0.4).all()


def test_mesh_encloses_a_person_with_normals_outwards(body: Body) -> None:
    a, b, c = body.v_template[body.faces].double().unbind(1)
    volume = torch.linalg.cross(a, b).mul(c).sum() / 6
    assert 0.045 < volume < 0.095


@pytest.mark.parametrize("sign", [-1, 1])
def test_bones_of_the_rest_pose(body: Body, sign: int) -> None:
    """Arms along +-x; thighs along (+-0.12, -1), shanks along (+-0.05, -1) in (x, y), for any shape."""
    side = "left_" if sign > 0 else "right_"
    joints, _, _ = rest_state(body, torch.cat([torch.zeros(1, 10), random_shapes(20)]))
    for start, end, direction in (
        ("shoulder", "elbow", (1.0, 0.0, 0.0)),
        ("elbow", "wrist", (1.0, 0.0, 0.0)),
        ("wrist", "hand", (1.0, 0.0, 0.0)),
        ("hip", "knee", (0.12, -1.0, 0.0)),
        ("knee", "ankle", (0.05, -1.0, 0.0)),
    ):
        bone = joints[:, JOINT_INDEX[side + end]] - joints[:, JOINT_INDEX[side + start]]
        wanted = torch.tensor(direction) * torch.tensor([sign, 1.0, 1.0])
        cosine = torch.cosine_similarity(bone, wanted[None])
        assert torch.rad2deg(torch.acos(cosine.clamp(max=1.0))).max() < 1.5, start


def test_frame(body: Body) -> None:
    joints, vertices, keypoints = rest_state(body, torch.zeros(1, 10))
    point = dict(zip(KEYPOINTS, keypoints[0], strict=True))
    joint = {name: joints[0, j] for name, j in JOINT_INDEX.items()}
    for name in KEYPOINTS:
        if name.startswith("left_"):
            assert point[name][0] > 0.02 > -0.02 > point[mirror_name(name)][0], name
    for name in JOINT_INDEX:
        if name.startswith("left_"):
            assert joint[name][0] > 0.02 > -0.02 > joint[mirror_name(name)][0], name
    assert joint["left_hand"][0] > 0.6
    assert point["nose"][2] > point["left_ear"][2] + 0.05
    assert point["left_big_toe"][2] > point["left_heel"][2] + 0.15
    chain = [
        joint[n][1] for n in ("left_foot", "left_knee", "left_hip", "spine1", "spine2", "spine3", "neck")
    ]
    assert all(low < high for low, high in zip(chain, [*chain[1:], joint["head"][1]], strict=True))
    assert point["head_top"][1] > vertices[0, :, 1].max() - 0.01
    assert vertices[0, vertices[0, :, 1].argmin(), 1] < joint["left_ankle"][1]


def test_keypoints_lie_near_their_joints(body: Body) -> None:
    joints, _, keypoints = rest_state(body, random_shapes(10))
    for name in COCO17:
        if name in JOINT_INDEX:
            gap = keypoints[:, KEYPOINTS.index(name)] - joints[:, JOINT_INDEX[name]]
            assert gap.norm(dim=-1).max() < 0.08, name
    shoulders = keypoints[:, [KEYPOINTS.index("left_shoulder"), KEYPOINTS.index("right_shoulder")]]
    torch.testing.assert_close(keypoints[:, KEYPOINTS.index("neck")], shoulders.mean(1), atol=1e-5, rtol=0)


def test_left_and_right_mirror_each_other(body: Body) -> None:
    joints, _, keypoints = rest_state(body, torch.zeros(1, 10))
    flip = torch.tensor([-1.0, 1.0, 1.0])
    for points, names in ((joints[0], tuple(JOINT_INDEX)), (keypoints[0], KEYPOINTS)):
        other = torch.stack([points[names.index(mirror_name(name))] for name in names])
        torch.testing.assert_close(points, other * flip, atol=4e-3, rtol=0)


def test_height_and_its_change_are_those_of_the_mesh(body: Body) -> None:
    mean, slope = body.height()
    vertical = body.rest_vertices(torch.cat([torch.zeros(1, 10), 0.1 * torch.eye(10)]))[..., 1]
    stature = vertical.max(-1).values - vertical.min(-1).values
    assert float(mean) == pytest.approx(float(stature[0]), abs=1e-6)
    torch.testing.assert_close(stature[1:] - stature[0], 0.1 * slope, atol=2e-4, rtol=0)
    assert slope.abs().max() > 0.01


def test_people_have_plausible_stature(body: Body) -> None:
    mean = stature(body, torch.zeros(1, 10)).item()
    low, high = STATURE_M[body.name.removeprefix("open-")]
    assert low < mean < high
    drawn = stature(body, random_shapes(300))
    assert 0.05 < drawn.std() < 0.15
    assert drawn.min() > 1.2
    assert drawn.max() < 2.2


@pytest.mark.parametrize("joint", ["left_elbow", "right_knee", "head", "spine2"])
def test_a_turned_joint_moves_what_hangs_on_it_alone(body: Body, joint: str) -> None:
    j = JOINT_INDEX[joint]
    betas = torch.zeros(1, 10)
    _, rest, _ = rest_state(body, betas)
    _, moved = body.forward(*turned(joint, (0.3, 0.9, 0.2)), betas)
    below = body.weights[:, descendants()[j]].sum(1)
    shift = (moved - rest)[0].norm(dim=-1)
    assert shift[below == 0].max() < 1e-6
    rigid = below > 1 - 1e-6
    assert rigid.sum() > 100
    pivot = body.joint_template[j] - body.joint_template[0]
    expected = (rest[0, rigid] - pivot) @ so3.exp(torch.tensor([0.3, 0.9, 0.2])).mT + pivot
    # Joints below do not turn against it, so all that hangs on them turns as one.
    torch.testing.assert_close(moved[0, rigid], expected, atol=1e-5, rtol=0)


def test_lowered_arms_hang_beside_the_body(body: Body) -> None:
    """Left is +x and z is forward, so a turn of -90 degrees about z lowers the left arm."""
    skeleton, _ = body.forward(*turned("left_shoulder", (0.0, 0.0, -np.pi / 2)), torch.zeros(1, 10))
    hand, shoulder = (skeleton.position[0, JOINT_INDEX[n]] for n in ("left_hand", "left_shoulder"))
    assert hand[1] < shoulder[1] - 0.5
    assert abs(hand[0] - shoulder[0]) < 0.01


def test_further_shapes_are_new_and_small() -> None:
    extra, body = load_extra_shapedirs(), load_body()
    assert extra.shape[:2] == (body.num_vertices, 3)
    assert extra.shape[2] >= 8
    known = torch.linalg.qr(body.shapedirs.reshape(-1, 10).double())[0]
    columns = extra.reshape(-1, extra.shape[2]).double()
    assert ((known.T @ columns).norm(dim=0) / columns.norm(dim=0)).max() < 0.01
    drawn = torch.randn(50, extra.shape[2], generator=torch.Generator().manual_seed(1))
    shift = torch.einsum("vce,ne->nvc", extra, drawn).norm(dim=-1)
    assert 0.004 < shift.mean() < 0.03
    assert shift.max() < 0.12


def test_a_missing_or_foreign_asset_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="depthfit body build"):
        read_asset(tmp_path / "open_body.npz")
    np.savez(tmp_path / "other.npz", faces=np.zeros((1, 3)))
    with pytest.raises(InputError, match="missing"):
        read_asset(tmp_path / "other.npz")


@pytest.mark.skipif(importlib.util.find_spec("anny") is not None, reason="anny is installed")
def test_building_without_anny_says_what_to_install(tmp_path: Path) -> None:
    from depthfit.body.build_open import build_open_body

    with pytest.raises(InputError, match=r"pip install 'depthfit\[body\]'"):
        build_open_body(tmp_path / "open_body.npz")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="needs the extra [body]: anny")
def test_a_rebuild_equals_what_is_shipped(tmp_path: Path) -> None:
    from depthfit.body.build_open import build_open_body

    report = build_open_body(tmp_path / "open_body.npz")
    assert min(report.explained.values()) > 0.998
    assert report.joint_error_mm[0] < 0.3
    built, shipped = read_asset(tmp_path / "open_body.npz"), read_asset()
    assert built.credit == shipped.credit
    np.testing.assert_array_equal(built.faces, shipped.faces)
    np.testing.assert_allclose(built.weights.toarray(), shipped.weights.toarray(), atol=1e-3)
    np.testing.assert_allclose(built.keypoint_joint, shipped.keypoint_joint)
    np.testing.assert_allclose(built.extra_shapedirs, shipped.extra_shapedirs, atol=1e-4)
    for gender in GENDERS:
        mesh, other = built.spaces[gender], shipped.spaces[gender]
        np.testing.assert_allclose(mesh.v_template, other.v_template, atol=1e-5)
        np.testing.assert_allclose(mesh.shapedirs, other.shapedirs, atol=1e-4)
        for name in ("joint_regressor", "keypoint_regressor"):
            one, two = getattr(built, name) @ mesh.v_template, getattr(shipped, name) @ other.v_template
            np.testing.assert_allclose(one, two, atol=1e-4)
