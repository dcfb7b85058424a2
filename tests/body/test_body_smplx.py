"""smplx itself is the oracle: the same file must give the same joints and vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from torch import Tensor

from depthfit import so3
from depthfit.body.export import export_smplx
from depthfit.body.load import GENDERS, load_body
from depthfit.body.model import Body
from depthfit.joints import KEYPOINTS, NUM_JOINTS
from tests.bodies import random_rotations
from tests.body import smpl_files

TOLERANCE_M = 1e-5


def states(count: int, betas: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Whole-sphere roots, strong poses and three-sigma shapes."""
    rotations = random_rotations(count, NUM_JOINTS, scale=0.8, seed=5).to(dtype)
    shape = torch.randn(count, betas, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return rotations[:, 0], rotations[:, 1:], (1.5 * shape).to(dtype)


def smplx_oracle(path: Path, root: Tensor, pose: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Joints (N, 45, 3) and vertices (N, V, 3) of smplx, moved so that the pelvis is at the origin."""
    layer = smplx.SMPLLayer(str(path), num_betas=betas.shape[-1], dtype=root.dtype)
    with torch.no_grad():
        out = layer(betas=betas, body_pose=pose, global_orient=root[:, None])
    return out.joints - out.joints[:, :1], out.vertices - out.joints[:, :1]


def assert_same_as_smplx(body: Body, path: Path, dtype: torch.dtype, tolerance: float) -> None:
    root, pose, betas = states(5, body.num_betas, dtype)
    skeleton, vertices = body.to(dtype=dtype).forward(root, pose, betas)
    joints, expected = smplx_oracle(path, root, pose, betas)
    assert vertices.std() > 0.1
    torch.testing.assert_close(skeleton.position, joints[:, :NUM_JOINTS], atol=tolerance, rtol=0)
    torch.testing.assert_close(vertices, expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def smpl_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smpl_files.write_pickle(
        tmp_path_factory.mktemp("smpl") / "SMPL_NEUTRAL.pkl", smpl_files.smpl_fields()
    )


@pytest.mark.parametrize("gender", GENDERS)
def test_exported_open_body_is_the_same_in_smplx(gender: str, tmp_path: Path) -> None:
    body = load_body("open", gender)
    export_smplx(body, tmp_path / "open.pkl")
    assert_same_as_smplx(body, tmp_path / "open.pkl", torch.float32, TOLERANCE_M)
    assert_same_as_smplx(body, tmp_path / "open.pkl", torch.float64, 1e-9)


def test_synthetic_smpl_pickle_is_the_same_in_smplx(smpl_file: Path) -> None:
    body = load_body(smpl_file)
    assert body.posedirs is not None
    assert_same_as_smplx(body, smpl_file, torch.float32, TOLERANCE_M)
    assert_same_as_smplx(body, smpl_file, torch.float64, 1e-9)


def test_pose_blend_shapes_matter_in_that_comparison(smpl_file: Path) -> None:
    body = load_body(smpl_file).replace(posedirs=None)
    with pytest.raises(AssertionError):
        assert_same_as_smplx(body, smpl_file, torch.float32, TOLERANCE_M)


def test_smpl_keypoints_are_smplx_extra_joints(smpl_file: Path) -> None:
    body = load_body(smpl_file)
    root, pose, betas = states(3, 10, torch.float32)
    skeleton, vertices = body.forward(root, pose, betas)
    keypoints = body.keypoints(skeleton, vertices)
    joints, _ = smplx_oracle(smpl_file, root, pose, betas)
    order = {
        "nose": 24, "right_eye": 25, "left_eye": 26, "right_ear": 27, "left_ear": 28, "left_big_toe": 29,
        "left_small_toe": 30, "left_heel": 31, "right_big_toe": 32, "right_small_toe": 33, "right_heel": 34,
        "left_shoulder": 16, "right_wrist": 21, "left_hip": 1, "right_knee": 5, "left_ankle": 7,
    }  # fmt: skip
    for name, index in order.items():
        torch.testing.assert_close(
            keypoints[:, KEYPOINTS.index(name)], joints[:, index], atol=TOLERANCE_M, rtol=0
        )
    neck = keypoints[:, KEYPOINTS.index("neck")]
    torch.testing.assert_close(neck, joints[:, [16, 17]].mean(1), atol=TOLERANCE_M, rtol=0)


def test_a_chumpy_pickle_is_the_same_body(tmp_path: Path, smpl_file: Path) -> None:
    """shapedirs of 300 as a Select of a leaf, and leaves elsewhere, as SMPL's own files hold them."""
    fields = smpl_files.smpl_fields()
    wide = np.concatenate([fields["shapedirs"], np.ones((*fields["shapedirs"].shape[:2], 2))], -1)
    idxs = np.arange(wide.size).reshape(wide.shape)[..., :10].ravel()
    with smpl_files.fake_chumpy() as chumpy:
        nodes = dict(fields)
        nodes["shapedirs"] = smpl_files.select(
            chumpy, smpl_files.leaf(chumpy, wide), idxs, fields["shapedirs"].shape
        )
        for key in ("v_template", "posedirs", "weights"):
            nodes[key] = smpl_files.leaf(chumpy, fields[key])
        nodes["J_transformed"] = chumpy.MatVecMult()  # not needed, so not evaluated
        path = smpl_files.write_pickle(tmp_path / "SMPL_MALE.pkl", nodes)
    body, plain = load_body(tmp_path, "male"), load_body(smpl_file)
    assert path.exists()
    assert body.name == "smpl-male"
    for field in ("v_template", "shapedirs", "posedirs", "weights", "joint_regressor"):
        torch.testing.assert_close(getattr(body, field), getattr(plain, field), atol=0, rtol=0)


@pytest.mark.parametrize("gender", ["neutral", "female"])
def test_export_and_load_give_the_same_body_back(gender: str, tmp_path: Path) -> None:
    body = load_body("open", gender)
    export_smplx(body, tmp_path / "folder" / "SMPL_NEUTRAL.pkl")
    again = load_body(tmp_path / "folder")
    assert again.posedirs is None
    for field in (
        "v_template", "shapedirs", "joint_regressor", "weights", "faces",
        "keypoint_regressor", "keypoint_joint",
    ):  # fmt: skip
        assert torch.equal(getattr(again, field), getattr(body, field)), field


def test_forward_derivatives_match_finite_differences() -> None:
    """Along random directions of rotation and shape, in float64, on the shipped body."""
    body = load_body().to(dtype=torch.float64)
    root, pose, betas = states(2, 10, torch.float64)
    generator = torch.Generator().manual_seed(8)
    turn = torch.randn(2, NUM_JOINTS, 3, generator=generator, dtype=torch.float64)
    shape = torch.randn(2, 10, generator=generator, dtype=torch.float64)

    def keypoints_and_vertices(step: Tensor) -> Tensor:
        rotation = torch.cat([root[:, None], pose], 1) @ so3.exp(step * turn)
        skeleton, vertices = body.forward(rotation[:, 0], rotation[:, 1:], betas + step * shape)
        return torch.cat([body.keypoints(skeleton, vertices), vertices], 1)

    step = torch.zeros((), dtype=torch.float64)
    _, derivative = torch.autograd.functional.jvp(keypoints_and_vertices, step, torch.ones_like(step))
    h = 1e-5
    numeric = (keypoints_and_vertices(step + h) - keypoints_and_vertices(step - h)) / (2 * h)
    assert numeric.abs().max() > 0.1
    torch.testing.assert_close(derivative, numeric, atol=1e-7, rtol=1e-6)
