"""Named joints and keypoints fit together."""

from __future__ import annotations

import pytest

from depthfit.joints import (
    BODY25,
    BODY25B,
    COCO17,
    KEYPOINT_FORMATS,
    KEYPOINTS,
    NUM_JOINTS,
    OKS_SIGMA,
    SMPL_JOINTS,
    SMPL_MIRROR,
    SMPL_PARENTS,
    descendants,
    mirror_name,
)


def test_mirroring_twice_changes_nothing_and_once_every_sided_joint() -> None:
    assert [SMPL_MIRROR[j] for j in SMPL_MIRROR] == list(range(NUM_JOINTS))
    for joint, other in enumerate(SMPL_MIRROR):
        assert (joint != other) == SMPL_JOINTS[joint].startswith(("left_", "right_"))
        # A mirrored skeleton is a skeleton: the mirror of the parent is the parent of the mirror.
        parent = SMPL_PARENTS[joint]
        assert SMPL_PARENTS[other] == (SMPL_MIRROR[parent] if parent >= 0 else -1)


def test_parents_come_before_children() -> None:
    assert SMPL_PARENTS[0] == -1
    assert all(0 <= parent < child for child, parent in enumerate(SMPL_PARENTS) if child)


def test_descendants_are_those_whose_path_to_the_root_passes_through() -> None:
    def path(joint: int) -> set[int]:
        return {joint} | (path(SMPL_PARENTS[joint]) if joint else set())

    for joint, below in enumerate(descendants()):
        assert sorted(below) == [k for k in range(NUM_JOINTS) if joint in path(k)]


@pytest.mark.parametrize(("name", "count"), [("coco17", 17), ("body25", 25), ("body25b", 25)])
def test_formats_name_known_points_once(name: str, count: int) -> None:
    points = KEYPOINT_FORMATS[name]
    assert len(points) == len(set(points)) == count
    assert set(points) <= set(KEYPOINTS)
    assert {mirror_name(point) for point in points} == set(points)


def test_formats_order_their_points_as_published() -> None:
    assert (COCO17[0], COCO17[5], COCO17[16]) == ("nose", "left_shoulder", "right_ankle")
    assert (BODY25[1], BODY25[8], BODY25[19], BODY25[24]) == ("neck", "mid_hip", "left_big_toe", "right_heel")
    assert (BODY25B[:17], BODY25B[17:19]) == (COCO17, ("upper_neck", "head_top"))


def test_every_point_has_a_spread_and_so_does_its_mirror() -> None:
    assert set(OKS_SIGMA) == set(KEYPOINTS)
    # COCO-WholeBody measured its feet side by side; all others are symmetric.
    for name, sigma in OKS_SIGMA.items():
        assert sigma == OKS_SIGMA[mirror_name(name)] or "toe" in name or "heel" in name
