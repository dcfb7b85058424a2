"""From the skeleton of a motion file to SMPL's rotations.

SMPL's rest pose is a T-pose with every joint frame parallel to the body's (y up, facing +z, left = +x). A
source joint turns its bone from the *source's* rest pose by G; SMPL's joint must therefore turn by G A,
where A poses SMPL like the source's rest pose. A is found once per skeleton: the trunk takes the source's
facing, a limb swings by the shortest rotation from where its parent leaves it onto the source's bone (so
that twist is inherited and never invented), and feet stay flat. Two things a rest pose does not tell come
from the motion: the hinge of each elbow, which SMPL's is made to coincide with by rolling the upper arm, and
the roll of the hand against the upper arm, half of which SMPL's elbow carries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.data.clip import Array, Clip
from depthfit.data.rest_skeleton import rest_positions
from depthfit.errors import InputError
from depthfit.joints import JOINT_INDEX, NUM_BODY_JOINTS, SMPL_PARENTS

_SIDED = {
    "hip": ("femur", "thigh", "upleg", "upperleg", "hip"),
    "knee": ("tibia", "shin", "leg", "lowerleg", "knee"),
    "ankle": ("ankle", "foot"),
    "foot": ("toes", "toebase", "toe"),
    "shoulder": ("humerus", "shldr", "arm", "upperarm", "shoulder"),
    "elbow": ("radius", "forearm", "lowerarm", "elbow"),
}
"""Words for each limb joint in the conventions in use (CMU's ASF, DAZ, Mixamo, MotionBuilder, SMPL). The
first that a skeleton has is taken: where ``LeftArm`` exists, ``LeftShoulder`` is the collar bone."""
_LIMB_CHILD = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist", "wrist": "hand"}
LEAST_BEND = np.radians(15.0)
"""Mean bend of an elbow over a clip from which its hinge axis is known."""
_UP = {"x": np.eye(3)[0], "y": np.eye(3)[1], "z": np.eye(3)[2]}


@dataclass(frozen=True)
class SmplMotion:
    """F frames in SMPL's joints.

    Attributes:
        root: (F, 3, 3) rotation of the pelvis in a world whose y axis is up.
        body: (F, 21, 3, 3) rotations of joints 1..21 relative to their parents.
    """

    root: Array
    body: Array


def retarget(clip: Clip, rest_frame: int | None = None, up: str | None = None) -> SmplMotion:
    """Rotations of SMPL's joints for every frame of ``clip``.

    Args:
        clip: Any skeleton whose limbs carry customary names.
        rest_frame: Frame that shows the person in a T- or A-pose, for files whose rest pose (all
            rotations zero) is not one.
        up: World axis ``x``, ``y`` or ``z`` that points up; found from the motion if not given, by
            where the head is above the pelvis on average.

    Raises:
        InputError: A limb has no joint, or the rest pose is no T- or A-pose.
    """
    if rest_frame is not None:
        clip = rebase(clip, rest_frame)
    joints = match_joints(clip)
    world = _to_y_up(detect_up(clip) if up is None else _UP[up])
    aligned = _align_elbows(clip, joints, _rest_alignment(clip, joints))
    source = clip.global_rotations
    turned = np.empty((clip.frames, NUM_BODY_JOINTS + 1, 3, 3))
    for j in range(NUM_BODY_JOINTS + 1):
        if j in joints:
            low, high, share = joints[j]
            turned[:, j] = world @ _between(source[:, low], source[:, high], share) @ aligned[j]
        else:
            turned[:, j] = turned[:, SMPL_PARENTS[j]]
    for side in ("left", "right"):
        _share_forearm_roll(turned, JOINT_INDEX[f"{side}_elbow"], JOINT_INDEX[f"{side}_wrist"])
    parents = list(SMPL_PARENTS[1 : NUM_BODY_JOINTS + 1])
    return SmplMotion(turned[:, 0], np.swapaxes(turned[:, parents], -1, -2) @ turned[:, 1:])


def rebase(clip: Clip, frame: int) -> Clip:
    """The same motion, measured from the pose of ``frame`` instead of the file's rest pose."""
    reference = clip.global_rotations[frame]
    turned = clip.global_rotations @ np.swapaxes(reference, -1, -2)
    parents = np.array(clip.parents)
    local, offsets = turned.copy(), clip.offsets.copy()
    below = np.flatnonzero(parents >= 0)
    local[:, below] = np.swapaxes(turned[:, parents[below]], -1, -2) @ turned[:, below]
    offsets[below] = (reference[parents[below]] @ clip.offsets[below][..., None])[..., 0]
    return Clip(clip.names, clip.parents, offsets, local, clip.translation, clip.fps)


def detect_up(clip: Clip) -> Array:
    """Signed world axis (3,) along which the head is above the root, on average over the clip."""
    head = _find(clip, ("head",), "head")
    mean = (clip.positions[:, head] - clip.positions[:, 0]).mean(0)
    axis = np.zeros(3)
    axis[np.abs(mean).argmax()] = np.sign(mean[np.abs(mean).argmax()])
    return axis


def match_joints(clip: Clip) -> dict[int, tuple[int, int, float]]:
    """SMPL joint -> (source joint, source joint, share): a rotation that far between the two.

    The joints between pelvis and chest are spread over SMPL's three spine joints. Joints of SMPL that
    the skeleton lacks (toes, collar bones) are left out.
    """
    found: dict[str, int] = {"pelvis": 0, "head": _find(clip, ("head",), "head")}
    for side in ("left", "right"):
        for joint, words in _SIDED.items():
            names = tuple(prefix + word for word in words for prefix in (side, side[0]))
            if joint == "foot":
                found.update(_optional(clip, f"{side}_foot", names))
            else:
                found[f"{side}_{joint}"] = _find(clip, names, f"{side} {joint}")
        # A joint called "lwrist" in ASF is the far half of the forearm, so plain names come first.
        hands = (f"{side}hand", f"{side}wrist", f"{side[0]}hand", f"{side[0]}wrist")
        found[f"{side}_wrist"] = _find(clip, hands, f"{side} hand")
    chest = _common_ancestor(clip, found["left_shoulder"], found["right_shoulder"])
    matched = {JOINT_INDEX[name]: (j, j, 0.0) for name, j in found.items()}
    matched.update(_spread_spine(_path(clip, 0, chest)))
    neck = _path(clip, chest, found["head"])
    matched[JOINT_INDEX["neck"]] = (neck[0], neck[0], 0.0)
    for side in ("left", "right"):
        collars = _path(clip, chest, found[f"{side}_shoulder"])[:-1]
        if collars:
            matched[JOINT_INDEX[f"{side}_collar"]] = (collars[-1], collars[-1], 0.0)
    return matched


def _spread_spine(spine: list[int]) -> dict[int, tuple[int, int, float]]:
    out = {}
    for name, position in zip(("spine1", "spine2", "spine3"), np.linspace(0, len(spine) - 1, 3), strict=True):
        low = int(position)
        high = min(low + 1, len(spine) - 1)
        out[JOINT_INDEX[name]] = (spine[low], spine[high], float(position - low))
    return out


def _rest_alignment(clip: Clip, joints: dict[int, tuple[int, int, float]]) -> dict[int, Array]:
    """A per SMPL joint: the global rotation that poses SMPL like the source's rest pose."""
    smpl, rest = rest_positions(), clip.rest_positions
    frame = _facing(clip, joints)
    _check_rest(clip, joints, frame)
    aligned = {0: frame}
    for j in range(1, NUM_BODY_JOINTS + 1):
        side_and_name = {v: k for k, v in JOINT_INDEX.items()}[j].split("_")
        name = side_and_name[-1]
        before = aligned[SMPL_PARENTS[j]]
        aligned[j] = before
        if name in ("ankle", "foot"):
            aligned[j] = _flat_foot(before, frame)
        elif name in _LIMB_CHILD and j in joints:
            child = JOINT_INDEX[f"{side_and_name[0]}_{_LIMB_CHILD[name]}"]
            here = joints[j][0]
            tip = _hand_centre(clip, here) if name == "wrist" else rest[joints[child][0]]
            bone = tip - rest[here]
            if np.linalg.norm(bone) > 1e-6:
                aligned[j] = _swing(before @ (smpl[child] - smpl[j]), bone) @ before
    return aligned


def _align_elbows(
    clip: Clip, joints: dict[int, tuple[int, int, float]], aligned: dict[int, Array]
) -> dict[int, Array]:
    """Roll the arms' A so that SMPL's elbow bends about its vertical axis where the source's bends.

    The hand keeps its own A. An arm that is straight throughout shows no hinge and is left as it is.
    """
    out = dict(aligned)
    for side, bend in (("left", -1.0), ("right", 1.0)):
        shoulder, elbow = JOINT_INDEX[f"{side}_shoulder"], JOINT_INDEX[f"{side}_elbow"]
        upper, lower = joints[shoulder][0], joints[elbow][0]
        local = np.swapaxes(clip.global_rotations[:, upper], -1, -2) @ clip.global_rotations[:, lower]
        hinge = Rotation.from_matrix(local).as_rotvec().mean(0)
        bone = aligned[shoulder][:, 0]
        hinge = hinge - (hinge @ bone) * bone
        if np.linalg.norm(hinge) < LEAST_BEND:
            continue
        axis = aligned[shoulder][:, 1] * bend
        angle = np.arctan2(np.cross(axis, hinge) @ bone, axis @ hinge)
        out[shoulder] = Rotation.from_rotvec(bone * angle).as_matrix() @ aligned[shoulder]
        forearm = aligned[elbow][:, 0]
        out[elbow] = _swing(out[shoulder][:, 0], forearm) @ out[shoulder]
    return out


def _share_forearm_roll(turned: Array, elbow: int, wrist: int) -> None:
    """Give SMPL's elbow half of the roll between elbow and wrist, as skin along a forearm does (in place).

    Half of the roll's sine: equal for usual angles, and without a jump where a noisy roll passes 180 deg.
    """
    relative = np.swapaxes(turned[:, elbow], -1, -2) @ turned[:, wrist]
    quaternion = Rotation.from_matrix(relative).as_quat()
    half = np.zeros((len(relative), 3))
    half[:, 0] = np.sin(2 * np.arctan2(quaternion[:, 0], quaternion[:, 3])) / 2
    turned[:, elbow] = turned[:, elbow] @ Rotation.from_rotvec(half).as_matrix()


def _facing(clip: Clip, joints: dict[int, tuple[int, int, float]]) -> Array:
    """Rotation whose columns are the rest pose's left, up and forward directions."""
    rest = clip.rest_positions
    left_hip, right_hip = rest[joints[JOINT_INDEX["left_hip"]][0]], rest[joints[JOINT_INDEX["right_hip"]][0]]
    up = rest[joints[JOINT_INDEX["head"]][0]] - (left_hip + right_hip) / 2
    left = left_hip - right_hip
    if min(np.linalg.norm(up), np.linalg.norm(left)) < 1e-9:
        raise _no_rest_pose("hips or head coincide")
    left = left / np.linalg.norm(left)
    up = up - (up @ left) * left
    up = up / np.linalg.norm(up)
    # Both axes are those of a standing body, up to a few degrees of unsymmetric measurement: a rest pose
    # is drawn along the file's axes, so the nearest axes are what is meant.
    frame = np.stack([left, up, np.cross(left, up)], 1)
    snapped = np.round(frame)
    return snapped if np.abs(snapped - frame).max() < 0.2 else frame


def _check_rest(clip: Clip, joints: dict[int, tuple[int, int, float]], frame: Array) -> None:
    """Refuse a rest pose that is not symmetric with the legs down and the arms out or down."""
    rest = clip.rest_positions

    def direction(upper: str, lower: str) -> Array:
        bone = rest[joints[JOINT_INDEX[lower]][0]] - rest[joints[JOINT_INDEX[upper]][0]]
        return frame.T @ bone / max(float(np.linalg.norm(bone)), 1e-9)

    for upper, lower in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist")):
        left = direction(f"left_{upper}", f"left_{lower}")
        right = direction(f"right_{upper}", f"right_{lower}") * (-1, 1, 1)
        if left @ right < 0.8:
            raise _no_rest_pose(f"{upper}-{lower} bones are not mirror images of each other")
        if upper in ("hip", "knee") and left[1] > -0.7:
            raise _no_rest_pose("the legs do not point down")
        if upper in ("shoulder", "elbow") and (left[0] < -0.3 or left[1] > 0.5):
            raise _no_rest_pose("the arms point neither out nor down")


def _no_rest_pose(found: str) -> InputError:
    fix = "Name a frame that shows a T- or A-pose as rest_frame"
    return InputError("skeleton", "rest pose", found, fix)


def _flat_foot(shank: Array, frame: Array) -> Array:
    """The rotation that keeps the shank's side axis and points the foot forward, sole level with it."""
    forward = frame[:, 2]
    side = shank[:, 0] - (shank[:, 0] @ forward) * forward
    side = side / np.linalg.norm(side)
    return np.stack([side, np.cross(forward, side), forward], 1)


def _swing(a: Array, b: Array) -> Array:
    """Shortest rotation that turns the direction of ``a`` into that of ``b``."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    if sine < 1e-12:
        return np.eye(3)
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, a @ b)).as_matrix()


def _between(low: Array, high: Array, share: float) -> Array:
    """Rotations (F, 3, 3) a ``share`` of the way from ``low`` to ``high``."""
    if share == 0:
        return low
    step = Rotation.from_matrix(np.swapaxes(low, -1, -2) @ high).as_rotvec() * share
    return low @ Rotation.from_rotvec(step).as_matrix()


def _to_y_up(up: Array) -> Array:
    """World rotation that turns ``up`` into +y; z up goes over a turn about x, as is customary."""
    if up @ _UP["y"] < -0.5:
        return np.diag([1.0, -1.0, -1.0])
    return _swing(up, _UP["y"])


def _hand_centre(clip: Clip, hand: int) -> Array:
    """Mean rest position of the joints below the hand, thumb aside; the hand itself if there are none."""
    below, points = {hand}, []
    for j, parent in enumerate(clip.parents):
        if parent in below and "thumb" not in clip.names[j].lower():
            below.add(j)
            points.append(clip.rest_positions[j])
    return np.mean(points, 0) if points else clip.rest_positions[hand]


def _plain(name: str) -> str:
    return "".join(c for c in name.rsplit(":", 1)[-1].lower() if c.isalnum())


def _optional(clip: Clip, joint: str, names: tuple[str, ...]) -> dict[str, int]:
    index = {_plain(n): i for i, n in enumerate(clip.names)}
    return next(({joint: index[name]} for name in names if name in index), {})


def _find(clip: Clip, names: tuple[str, ...], what: str) -> int:
    found = _optional(clip, what, names)
    if not found:
        raise InputError("skeleton", what, f"none of {names}", f"Rename the joint that is the {what}")
    return found[what]


def _ancestors(clip: Clip, joint: int) -> list[int]:
    chain = [joint]
    while clip.parents[chain[-1]] >= 0:
        chain.append(clip.parents[chain[-1]])
    return chain


def _common_ancestor(clip: Clip, a: int, b: int) -> int:
    above = set(_ancestors(clip, a))
    return next(j for j in _ancestors(clip, b) if j in above)


def _path(clip: Clip, top: int, bottom: int) -> list[int]:
    """Joints from below ``top`` down to and with ``bottom``."""
    chain = _ancestors(clip, bottom)
    if top not in chain or top == bottom:
        raise InputError("skeleton", clip.names[bottom], f"is not below {clip.names[top]}", "Unknown layout")
    return chain[: chain.index(top)][::-1]
