"""Sources of poses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthfit import so3
from depthfit.errors import InputError
from depthfit.synth.poses import PoseSource


@pytest.fixture
def library(tmp_path):
    """Everyday poses bend the left knee, hard ones the right; the roots lean forward by 0.2 rad."""
    rotvec = np.zeros((4, 21, 3), np.float16)
    rotvec[:2, 3, 0] = 1.0
    rotvec[2:, 4, 0] = 1.0
    path = tmp_path / "poses.npz"
    root = np.tile([0.2, 0, 0], (4, 1)).astype(np.float16)
    np.savez(path, rotvec=rotvec, root=root, kind=np.array(["everyday", "everyday", "hard", "hard"]))
    return path


def _lean(root: torch.Tensor) -> float:
    return float(torch.arccos(root[1, 1].clamp(-1, 1)))


def test_kinds_come_in_their_shares_from_their_rows(library):
    source, rng = PoseSource((0.5, 0.3, 0.2), library), np.random.default_rng(0)
    drawn = [source.draw(rng) for _ in range(500)]
    kinds = np.array([kind for _, _, kind in drawn])
    for kind, share in (("everyday", 0.5), ("hard", 0.3), ("random", 0.2)):
        assert (kinds == kind).mean() == pytest.approx(share, abs=0.07)
    for pose, root, kind in drawn:
        assert pose.shape == (23, 3, 3)
        torch.testing.assert_close(pose @ pose.mT, torch.eye(3).expand(23, 3, 3), atol=1e-5, rtol=0)
        if kind != "random":
            bent = so3.log(pose)[[3, 4], 0] > 0.9
            assert bent.tolist() == [kind == "everyday", kind == "hard"]
        if kind == "everyday":
            assert _lean(root) == pytest.approx(0.2, abs=1e-2)


def test_headings_are_random_and_some_people_are_turned_over(library):
    source, rng = PoseSource((0, 1, 0), library), np.random.default_rng(1)
    roots = [source.draw(rng)[1] for _ in range(300)]
    lean = np.array([_lean(root) for root in roots])
    assert (np.abs(lean - 0.2) > 0.02).mean() == pytest.approx(0.3, abs=0.08)
    assert (lean > np.pi / 2).sum() > 20
    heading = np.array([float(torch.atan2(r[0, 2], r[2, 2])) for r in roots])
    assert np.histogram(heading, 4, (-np.pi, np.pi))[0].min() > 40


def test_a_library_without_hard_poses_is_refused_if_they_are_asked_for(library, tmp_path):
    with np.load(library) as data:
        np.savez(tmp_path / "easy.npz", **{**data, "kind": np.array(["everyday"] * 4)})
    PoseSource((1, 0, 1), tmp_path / "easy.npz")
    with pytest.raises(InputError, match="no hard pose"):
        PoseSource((1, 1, 1), tmp_path / "easy.npz")


def test_a_missing_library_is_named(tmp_path):
    with pytest.raises(InputError, match=r"poses\.npz"):
        PoseSource((1, 1, 1), tmp_path / "poses.npz")
