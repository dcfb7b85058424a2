"""Motion files against positions worked out by hand, and retargeting against the source's own bones."""

from __future__ import annotations

import gzip
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from depthfit import so3
from depthfit.data.amass import amass_files, read_amass
from depthfit.data.asf_amc import read_amc, read_asf
from depthfit.data.bvh import read_bvh
from depthfit.data.clip import Clip
from depthfit.data.pose_library import CATEGORIES, farthest_points, load_pose_library
from depthfit.data.random_poses import joint_limits, rest_skeleton_joints, sample_poses, self_intersection
from depthfit.data.rest_skeleton import REST_OFFSETS
from depthfit.data.retarget import rebase, retarget
from depthfit.errors import InputError
from depthfit.joints import JOINT_INDEX, SMPL_JOINTS, SMPL_PARENTS

BVH = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT knee
  {
    OFFSET 0 -2 0
    CHANNELS 3 Xrotation Yrotation Zrotation
    End Site
    {
      OFFSET 0 0 3
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.5
1 2 3 0 0 0 0 0 0
1 2 3 90 90 0 90 0 0
"""

ASF = """:version 1.10
:units
  mass 1.0
  length 0.5
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 0 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name thigh
    direction 0 -1 0
    length 10
    axis 0 0 90 XYZ
    dof rx rz
  end
  begin
    id 2
    name shank
    direction 0 -1 0
    length 5
    axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root thigh
    thigh shank
  end
"""
AMC = """:FULLY-SPECIFIED
:DEGREES
1
root 2 0 0 0 0 0
thigh 0 0
2
root 2 0 0 0 90 0
thigh 90 0
3
root 0 0 0 0 0 0
thigh 0 90
"""
SAMPLES = os.environ.get("DEPTHFIT_TEST_DATA")
needs_samples = pytest.mark.skipif(
    not SAMPLES, reason="set DEPTHFIT_TEST_DATA to the folder of mocap samples"
)


def test_bvh_channel_order_and_positions(tmp_path: Path) -> None:
    path = tmp_path / "a.bvh.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(BVH)
    clip = read_bvh(path)
    assert clip.names == ("hip", "knee", "knee_end")
    assert clip.fps == 2
    # Frame 1: the root turns by Rz(90) Rx(90), so -2y -> Rx: -2z -> Rz: -2z. The knee's Rx(90) takes 3z to
    # -3y, which the root takes (Rx) to -3z and (Rz) leaves there.
    expected = [[[1, 2, 3], [1, 0, 3], [1, 0, 6]], [[1, 2, 3], [1, 2, 1], [1, 2, -2]]]
    assert np.abs(clip.positions - expected).max() < 1e-12


def test_bvh_faults_are_named(tmp_path: Path) -> None:
    for text, match in [
        (BVH.replace("1 2 3 90 90 0 90 0 0\n", ""), "truncated"),
        (BVH.replace("HIERARCHY", "SOMETHING"), "sections not found"),
        (BVH.replace("CHANNELS 3 Xrotation", "CHANNELS 3 Wspin"), "Unknown channel"),
        (BVH.replace("CHANNELS 3 X", "CHANNELS -2 X"), "CHANNELS of knee: -2"),
        (BVH.replace("90 90 0", "90 o 0"), "could not convert string to float: 'o'"),
    ]:
        (tmp_path / "b.bvh").write_text(text)
        with pytest.raises(InputError, match=match):
            read_bvh(tmp_path / "b.bvh")


def test_asf_amc_axes_units_and_positions(tmp_path: Path) -> None:
    (tmp_path / "01.asf").write_text(ASF)
    (tmp_path / "01_01.amc").write_text(AMC)
    skeleton = read_asf(tmp_path / "01.asf")
    assert skeleton.scale == pytest.approx(0.0254 / 0.5)
    clip = read_amc(tmp_path / "01_01.amc", skeleton)
    assert clip.names == ("root", "thigh", "shank", "shank_end")
    unit = skeleton.scale
    # The thigh's own frame is turned by Rz(90): its x axis is the world's y, its z the world's z.
    # Frame 1: Ry(90) of both root and thigh leaves bones along -y where they are.
    # Frame 2: Rz(90) of the thigh takes -y to +x.
    expected = np.array(
        [
            [[2, 0, 0], [2, 0, 0], [2, -10, 0], [2, -15, 0]],
            [[2, 0, 0], [2, 0, 0], [2, -10, 0], [2, -15, 0]],
            [[0, 0, 0], [0, 0, 0], [10, 0, 0], [15, 0, 0]],
        ]
    )
    assert np.abs(clip.positions - expected * unit).max() < 1e-12
    turn = clip.rotations[1, 1]
    assert np.abs(turn - Rotation.from_euler("y", 90, degrees=True).as_matrix()).max() < 1e-12


def test_amc_of_another_skeleton_is_refused(tmp_path: Path) -> None:
    (tmp_path / "01.asf").write_text(ASF)
    (tmp_path / "01_01.amc").write_text(AMC.replace("thigh 0 90", "thigh 0 90 3"))
    with pytest.raises(InputError, match="3 values for bone 'thigh'"):
        read_amc(tmp_path / "01_01.amc", tmp_path / "01.asf")


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("length 0.5", "length half", "line 4: 'half' are no numbers"),
        ("length 0.5", "length 0", "line 4: a unit of length of 0"),
        ("orientation 0 0 0", "orientation 0 zero 0", "line 10: '0 zero 0' are no numbers"),
        ("order TX TY TZ RX RY RZ", "order TX TY RX RY RZ", "line 7: .* of the root"),
        ("  order TX TY TZ RX RY RZ\n", "", "root: no order"),
        ("direction 0 -1 0\n    length 10", "direction 0 -1 x\n    length 10", "line 15: '0 -1 x' are no"),
        ("direction 0 -1 0\n    length 10", "direction 0 -1\n    length 10", "line 15: 2 numbers, not 3"),
        ("length 10", "length ten", "line 16: 'ten' are no numbers"),
        ("axis 0 0 90 XYZ", "axis 0 0 XYZ", "line 17: '0 0 XYZ' are no numbers"),
        ("axis 0 0 90 XYZ", "axis 0 0 90 XXZ", "line 17: 'XXZ' is no order"),
        ("dof rx rz", "dof rx tz", "line 18: .* of bone thigh"),
        (":bonedata\n  begin\n", ":bonedata\n", "line 12: 'id' of no bone"),
        ("name thigh", "name", "line 14: 'name' of no bone"),
        (":hierarchy", ":\n:hierarchy", "line 27: a section without a name"),
        ("thigh shank\n", "thigh root\n", "hierarchy: the root hangs on 'thigh'"),
    ],
)
def test_damaged_skeletons_are_named_by_file_and_line(
    tmp_path: Path, right: str, wrong: str, words: str
) -> None:
    assert right in ASF
    path = tmp_path / "01.asf"
    path.write_text(ASF.replace(right, wrong, 1))
    with pytest.raises(InputError, match=rf"01\.asf: {words}"):
        read_asf(path)


def test_a_motion_with_a_word_for_a_number_is_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "01.asf").write_text(ASF)
    (tmp_path / "01_01.amc").write_text(AMC.replace("thigh 90 0", "thigh 90 1.#IND"))
    with pytest.raises(InputError, match=r"01_01\.amc: line 8: '90 1\.#IND' are no numbers"):
        read_amc(tmp_path / "01_01.amc", tmp_path / "01.asf")


@pytest.mark.parametrize("layout", ["smplh", "smplx"])
def test_amass_layouts_and_positions(tmp_path: Path, layout: str) -> None:
    poses = np.zeros((2, 156))
    poses[1, 3 * 4 : 3 * 4 + 3] = (np.pi / 2, 0, 0)  # the left knee bends: the shank points back
    keys = {"poses": poses, "mocap_framerate": 60.0}
    if layout == "smplx":
        keys = {"root_orient": poses[:, :3], "pose_body": poses[:, 3:66], "mocap_frame_rate": 60.0}
    np.savez(tmp_path / "walk.npz", trans=np.ones((2, 3)), **keys)
    np.savez(tmp_path / "shape.npz", betas=np.zeros(10))
    assert [p.name for p in amass_files(tmp_path)] == ["walk.npz"]
    clip = read_amass(tmp_path / "walk.npz")
    assert clip.fps == 60
    shank = clip.positions[:, JOINT_INDEX["left_ankle"]] - clip.positions[:, JOINT_INDEX["left_knee"]]
    x, y, z = REST_OFFSETS[JOINT_INDEX["left_ankle"]]
    assert np.abs(shank - [[x, y, z], [x, -z, y]]).max() < 1e-12
    with pytest.raises(InputError, match="poses"):
        read_amass(tmp_path / "shape.npz")


def smpl_positions(root: np.ndarray, body: np.ndarray) -> np.ndarray:
    joints = rest_skeleton_joints(torch.from_numpy(body)).numpy()
    return np.einsum("fab,fjb->fja", root, joints)


def foreign_clip(frames: int) -> tuple[Clip, np.ndarray, np.ndarray]:
    """Random poses on a skeleton with Mixamo's names, z up, facing -y, in an A-pose, in centimetres."""
    generator = torch.Generator().manual_seed(4)
    body = so3.exp(so3.log(sample_poses(frames, generator)).double()).numpy()
    root = Rotation.from_rotvec(np.linspace(0, 5, frames)[:, None] * (0, 1, 0)).as_matrix()
    world = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # y up -> z up
    aligned = np.broadcast_to(
        np.eye(3), (22, 3, 3)
    ).copy()  # the A-pose, as global rotations of SMPL's joints
    for side, sign in (("left", -1), ("right", 1)):
        for joint in ("shoulder", "elbow", "wrist"):
            turn = Rotation.from_euler("z", sign * 40, degrees=True).as_matrix()
            aligned[JOINT_INDEX[f"{side}_{joint}"]] = turn
    turned = np.empty((frames, 22, 3, 3))
    for j in range(22):
        parent = SMPL_PARENTS[j]
        turned[:, j] = root if j == 0 else turned[:, parent] @ body[:, j - 1]
    source = world @ turned @ np.swapaxes(aligned, -1, -2) @ world.T
    local, offsets = source.copy(), np.zeros((22, 3))
    for j in range(1, 22):
        parent = SMPL_PARENTS[j]
        local[:, j] = np.swapaxes(source[:, parent], -1, -2) @ source[:, j]
        offsets[j] = 100 * world @ aligned[parent] @ REST_OFFSETS[j]
    return Clip(mixamo_names(), SMPL_PARENTS[:22], offsets, local, np.zeros((frames, 3)), 30.0), root, body


def mixamo_names() -> tuple[str, ...]:
    words = {
        "pelvis": "Hips", "hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase",
        "spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2", "neck": "Neck", "head": "Head",
        "collar": "Shoulder", "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand",
    }  # fmt: skip
    out = []
    for name in SMPL_JOINTS[:22]:
        side, _, joint = name.rpartition("_")
        out.append(f"mixamorig:{side.capitalize()}{words[joint]}")
    return tuple(out)


def test_retargeting_recovers_poses_of_a_foreign_skeleton() -> None:
    clip, root, body = foreign_clip(40)
    motion = retarget(clip, up="z")
    assert np.abs(motion.root - root).max() < 1e-9
    found, expected = smpl_positions(motion.root, motion.body), smpl_positions(root, body)
    # Hands hang on the wrist's rotation, which a skeleton without fingers leaves to the forearm's.
    assert np.abs(found - expected)[:, :22].max() < 1e-6
    exact = [
        j - 1 for j in range(1, 22) if SMPL_JOINTS[j].split("_")[-1] not in ("shoulder", "elbow", "wrist")
    ]
    assert np.abs(motion.body[:, exact] - body[:, exact]).max() < 1e-9


def test_rest_frame_replaces_a_rest_pose_that_is_none() -> None:
    clip, _, body = foreign_clip(10)
    # The same motion told from a rest pose in which every bone lies elsewhere.
    scrambled = rebase(clip, 5)
    with pytest.raises(InputError, match="rest_frame"):
        retarget(scrambled, up="z")
    identity = np.broadcast_to(np.eye(3), (1, 22, 3, 3))
    with_rest = Clip(
        clip.names, clip.parents, clip.offsets, np.concatenate([clip.rotations, identity]),
        np.zeros((11, 3)), 30.0,
    )  # fmt: skip
    moved = rebase(with_rest, 5)
    assert np.abs(moved.positions - with_rest.positions).max() < 1e-9
    recovered, plain = retarget(moved, rest_frame=10, up="z"), retarget(with_rest, up="z")
    assert np.abs(recovered.body - plain.body).max() < 1e-9
    assert len(body) == 10


def test_random_poses_obey_limits_and_do_not_cut_through_themselves() -> None:
    poses = sample_poses(400, torch.Generator().manual_seed(0))
    assert torch.equal(poses, sample_poses(400, torch.Generator().manual_seed(0)))
    assert (self_intersection(poses) <= 0).float().mean() > 0.99
    knee = so3.log(poses[:, JOINT_INDEX["left_knee"] - 1])
    low, high = joint_limits()[JOINT_INDEX["left_knee"] - 1, 0]
    assert knee[:, 0].min() > low - 0.1
    assert knee[:, 0].max() < high + 0.1
    assert knee[:, 0].max() > 0.8 * high
    left, right = (joint_limits()[JOINT_INDEX[f"{side}_elbow"] - 1] for side in ("left", "right"))
    assert torch.equal(left[1], -right[1].flip(0))


def test_self_intersection_sees_a_forearm_in_the_chest() -> None:
    poses = torch.eye(3).expand(2, 21, 3, 3).clone()
    assert (self_intersection(poses) < 0).all()
    turn = so3.exp(torch.tensor([0.0, -2.6, 0.0]))
    poses[0, JOINT_INDEX["left_elbow"] - 1] = so3.exp(torch.tensor([0.0, -3.1, 0.0]))
    poses[0, JOINT_INDEX["left_shoulder"] - 1] = turn
    assert self_intersection(poses)[0] > 0


def test_farthest_points_spread_out() -> None:
    line = torch.tensor([[0.0], [0.1], [1.0], [0.5], [0.9]])
    assert farthest_points(line, 3).tolist() == [0, 2, 3]


def test_shipped_library_holds_valid_poses_of_held_out_clips() -> None:
    for category, clips in CATEGORIES.items():
        library = load_pose_library(category)
        assert len(library.body) == 300
        assert set(library.clip) == set(clips)
        eye = torch.eye(3).expand(300, 21, 3, 3)
        assert (library.body.mT @ library.body - eye).abs().max() < 1e-5
        assert library.root[:, 1, 1].median() > 0.9  # upright on the whole
    with pytest.raises(InputError, match="kind"):
        load_pose_library("silly")


@needs_samples
@pytest.mark.parametrize("name", ["cmu_bvh/salsa_14.bvh.gz", "cmu_asfamc/01_09.amc.gz"])
def test_real_clips_keep_limb_directions(name: str) -> None:
    path = Path(str(SAMPLES)) / "mocap" / name
    clip = read_bvh(path) if ".bvh" in name else read_amc(path, path.parent / "01.asf")
    lengths = np.linalg.norm(clip.positions[:, 1:] - clip.positions[:, list(clip.parents[1:])], axis=-1)
    assert np.abs(lengths - np.linalg.norm(clip.offsets[1:], axis=-1)).max() < 1e-9
    motion = retarget(clip)
    joints = smpl_positions(motion.root, motion.body)
    names = ("lShldr", "lForeArm", "lHand") if ".bvh" in name else ("lhumerus", "lradius", "lhand")
    for (upper, lower), (a, b) in zip(
        (("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")), pairwise(names),
        strict=True,
    ):  # fmt: skip
        found = joints[:, JOINT_INDEX[lower]] - joints[:, JOINT_INDEX[upper]]
        source = clip.positions[:, clip.names.index(b)] - clip.positions[:, clip.names.index(a)]
        cosine = (found * source).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(source, axis=-1)
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.1
