"""Rotations against scipy, and derivatives against differences."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from depthfit import so3

ANGLES = (0.0, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3, 0.1, 1.0, 2.0, 3.0, math.pi - 1e-3, math.pi - 1e-6, math.pi)


def vectors(angle: float, count: int = 40) -> Tensor:
    """Rotation vectors (count, 3) of one angle, float64; the first three are about the axes."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    axis[:3] = torch.eye(3, dtype=torch.float64)
    return torch.nn.functional.normalize(axis, dim=-1) * angle


@pytest.mark.parametrize("angle", [*ANGLES, 4.0, 7.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 3e-6)])
def test_exp_is_scipys(angle: float, dtype: torch.dtype, tolerance: float) -> None:
    omega = vectors(angle).to(dtype)
    expected = torch.from_numpy(Rotation.from_rotvec(omega.double().numpy()).as_matrix())
    torch.testing.assert_close(so3.exp(omega).double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_is_scipys(angle: float) -> None:
    rotation = Rotation.from_rotvec(vectors(angle).numpy())
    found = so3.log(torch.from_numpy(rotation.as_matrix()))
    assert bool((found.norm(dim=-1) <= math.pi + 1e-9).all())
    if angle < math.pi - 1e-9:
        torch.testing.assert_close(found, torch.from_numpy(rotation.as_rotvec()), atol=1e-9, rtol=0)
    else:
        # Half a turn has two rotation vectors: only the rotation itself is unique.
        back = torch.from_numpy(Rotation.from_rotvec(found.numpy()).as_matrix())
        torch.testing.assert_close(back, torch.from_numpy(rotation.as_matrix()), atol=1e-9, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_log_in_single_precision_loses_no_small_angle(angle: float) -> None:
    rotation = so3.exp(vectors(angle).float())
    torch.testing.assert_close(so3.exp(so3.log(rotation)), rotation, atol=2e-6, rtol=0)


def test_exp_has_its_derivative_at_zero() -> None:
    jacobian = torch.autograd.functional.jacobian(so3.exp, torch.zeros(3, dtype=torch.float64))
    expected = so3.hat(torch.eye(3, dtype=torch.float64)).permute(1, 2, 0)
    torch.testing.assert_close(jacobian, expected)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-3, 0.5, 2.0, 3.0])
def test_right_jacobian_inverse_is_the_difference_quotient(angle: float) -> None:
    omega, step = vectors(angle, 8), 1e-6
    columns = []
    for axis in torch.eye(3, dtype=torch.float64) * step:
        ahead, back = (so3.log(so3.exp(omega) @ so3.exp(d)) for d in (axis, -axis))
        columns.append((ahead - back) / (2 * step))
    expected = torch.stack(columns, -1)
    torch.testing.assert_close(so3.right_jacobian_inverse(omega), expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_6d_returns_the_rotation_and_forgives_scale_and_shear(layout: str) -> None:
    rotation = so3.exp(vectors(1.3))
    six = so3.to_6d(rotation, layout)
    torch.testing.assert_close(so3.from_6d(six, layout), rotation)
    first, second = six[..., :3], six[..., 3:]
    skewed = torch.cat([3 * first, 0.5 * second + 0.7 * first], -1)
    torch.testing.assert_close(so3.from_6d(skewed, layout), rotation)


def test_6d_layouts_are_what_they_are_called() -> None:
    rotation = so3.exp(vectors(1.3))
    rows, columns = so3.to_6d(rotation, "rows"), so3.to_6d(rotation, "columns")
    torch.testing.assert_close(rows, torch.cat([rotation[..., 0, :], rotation[..., 1, :]], -1))
    torch.testing.assert_close(columns, torch.cat([rotation[..., :, 0], rotation[..., :, 1]], -1))
    torch.testing.assert_close(so3.from_6d(rows, "columns"), rotation.mT)
    with pytest.raises(ValueError, match=r"'rows'.*'columns'"):
        so3.from_6d(rows, "row")
