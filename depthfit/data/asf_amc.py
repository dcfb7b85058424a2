"""Acclaim ASF skeletons with AMC motion, as the CMU motion capture database has them.

A bone turns about axes of its own: its rotation is C R C^-1, where C is the bone's ``axis`` and R the
product of its degrees of freedom, the first of which acts first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.data.clip import Array, Clip, read_text
from depthfit.errors import InputError

METRES_PER_INCH = 0.0254
TURNS, MOVES = ("rx", "ry", "rz"), ("tx", "ty", "tz")
DAMAGED = "The file is damaged"
Line = tuple[int, list[str]]
"""Number of a line in its file, and its words."""


@dataclass
class Bone:
    """``direction`` and ``axis`` are in the world's frame; ``axis_order`` (``XYZ``) acts first to last."""

    name: str
    direction: Array = field(default_factory=lambda: np.zeros(3))
    length: float = 0.0
    axis: Array = field(default_factory=lambda: np.zeros(3))
    axis_order: str = "XYZ"
    dof: list[str] = field(default_factory=list)


@dataclass
class AsfSkeleton:
    """Bones by name (``root`` first) and each bone's parent; ``scale`` is metres per unit of length."""

    bones: dict[str, Bone]
    parents: dict[str, str]
    scale: float
    degrees: bool


def read_asf(path: str | Path) -> AsfSkeleton:
    """Read a skeleton. CMU's length unit of 0.45 means that one inch is 0.45 units.

    Raises:
        InputError: The file is missing or not an ASF skeleton.
    """
    path = Path(path)
    sections = _sections(path, read_text(path))
    if not {"units", "root", "bonedata", "hierarchy"} <= sections.keys():
        raise InputError(path, "sections", str(sorted(sections)), "Give an ASF skeleton file")
    units = {words[0]: (number, words[1:2]) for number, words in sections["units"] if len(words) > 1}
    bones = {"root": _parse_root(path, sections["root"])}
    for bone in _parse_bones(path, sections["bonedata"]):
        bones[bone.name] = bone
    parents: dict[str, str] = {}
    for _, words in sections["hierarchy"]:
        if words[0] not in ("begin", "end"):
            parents.update(dict.fromkeys(words[1:], words[0]))
    unknown = (set(parents) | set(parents.values())) - bones.keys()
    if unknown:
        raise InputError(path, "hierarchy", f"bones without data: {sorted(unknown)}", DAMAGED)
    if "root" in parents:
        raise InputError(path, "hierarchy", f"the root hangs on {parents['root']!r}", DAMAGED)
    number, words = units.get("length", (0, ["1.0"]))
    (unit,) = _numbers(path, number, words, 1)
    if not unit > 0:
        raise InputError(path, f"line {number}", f"a unit of length of {unit:g}", DAMAGED)
    degrees = units.get("angle", (0, ["deg"]))[1][0].startswith("deg")
    return AsfSkeleton(bones, parents, METRES_PER_INCH / unit, degrees)


def read_amc(path: str | Path, skeleton: AsfSkeleton | str | Path, fps: float = 120.0) -> Clip:
    """Read a motion of ``skeleton``; lengths come out in metres.

    Args:
        path: The .amc file, plain or gzipped.
        skeleton: The skeleton, or the path of its .asf file.
        fps: The file does not say; CMU recorded at 120 (some clips at 60).

    Raises:
        InputError: The file is missing, is damaged or belongs to another skeleton.
    """
    path = Path(path)
    skeleton = skeleton if isinstance(skeleton, AsfSkeleton) else read_asf(skeleton)
    order = _depth_first(skeleton)
    values = _parse_motion(path, skeleton)
    frames = len(values["root"])
    names, parents, offsets = list(order), [], []
    rotations = np.broadcast_to(np.eye(3), (frames, len(order), 3, 3)).copy()
    for j, name in enumerate(order):
        parent = skeleton.parents.get(name)
        parents.append(-1 if parent is None else order.index(parent))
        offsets.append(np.zeros(3) if parent is None else _bone_vector(skeleton, parent))
        if name in values and skeleton.bones[name].dof:
            rotations[:, j] = _bone_rotation(skeleton, skeleton.bones[name], values[name])
    for j, name in enumerate(order):
        if name not in skeleton.parents.values():
            names.append(f"{name}_end")
            parents.append(j)
            offsets.append(_bone_vector(skeleton, name))
    ends = np.broadcast_to(np.eye(3), (frames, len(names) - len(order), 3, 3))
    moves = [skeleton.bones["root"].dof.index(axis) for axis in MOVES]
    return Clip(
        names=tuple(names),
        parents=tuple(parents),
        offsets=np.array(offsets),
        rotations=np.concatenate([rotations, ends], 1),
        translation=values["root"][:, moves] * skeleton.scale,
        fps=fps,
    )


def _sections(path: Path, text: str) -> dict[str, list[Line]]:
    sections: dict[str, list[Line]] = {}
    current: list[Line] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#")[0].strip()
        if line.startswith(":"):
            words = line[1:].split()
            if not words:
                raise InputError(path, f"line {number}", "a section without a name", DAMAGED)
            current = sections.setdefault(words[0].lower(), [])
        elif line:
            current.append((number, line.split()))
    return sections


def _numbers(path: Path, line: int, words: list[str], count: int | None = None) -> list[float]:
    """The words of a line as numbers, ``count`` of them if it is given."""
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise InputError(path, f"line {line}", f"{' '.join(words)!r} are no numbers", DAMAGED) from error
    if count is not None and len(values) != count:
        raise InputError(path, f"line {line}", f"{len(values)} numbers, not {count}", DAMAGED)
    return values


def _axis_order(path: Path, line: int, words: list[str]) -> str:
    order = words[0].upper() if words else "XYZ"
    if sorted(order) != ["X", "Y", "Z"]:
        raise InputError(path, f"line {line}", f"{order!r} is no order of X, Y and Z", DAMAGED)
    return order


def _parse_root(path: Path, lines: list[Line]) -> Bone:
    bone = Bone("root")
    for number, (key, *rest) in lines:
        if key == "order":
            bone.dof = [word.lower() for word in rest]
            if not set(MOVES) <= set(bone.dof) <= {*MOVES, *TURNS}:
                raise InputError(path, f"line {number}", f"{rest} of the root", "It moves and turns in space")
        elif key == "axis":
            bone.axis_order = _axis_order(path, number, rest)
        elif key == "orientation":
            bone.axis = np.array(_numbers(path, number, rest, 3))
    if not bone.dof:
        raise InputError(path, "root", "no order of its numbers", DAMAGED)
    return bone


def _parse_bones(path: Path, lines: list[Line]) -> list[Bone]:
    bones: list[Bone] = []
    for number, (key, *rest) in lines:
        if key == "begin":
            bones.append(Bone(""))
            continue
        if not bones or (key == "name" and not rest):
            raise InputError(path, f"line {number}", f"{key!r} of no bone", DAMAGED)
        bone = bones[-1]
        if key == "name":
            bone.name = rest[0]
        elif key == "direction":
            bone.direction = np.array(_numbers(path, number, rest, 3))
        elif key == "length":
            (bone.length,) = _numbers(path, number, rest, 1)
        elif key == "axis":
            bone.axis = np.array(_numbers(path, number, rest[:3], 3))
            bone.axis_order = _axis_order(path, number, rest[3:])
        elif key == "dof":
            bone.dof = [word.lower() for word in rest]
            if not set(bone.dof) <= set(TURNS):
                found = f"{rest} of bone {bone.name}"
                raise InputError(path, f"line {number}", found, "Only rotations are supported below the root")
    return bones


def _bone_vector(skeleton: AsfSkeleton, name: str) -> Array:
    bone = skeleton.bones[name]
    return bone.direction * (bone.length * skeleton.scale)


def _bone_rotation(skeleton: AsfSkeleton, bone: Bone, values: Array) -> Array:
    turning = [i for i, axis in enumerate(bone.dof) if axis.startswith("r")]
    # Lower-case axes are fixed ones, the first of which acts first: Rz Ry Rx for "xyz".
    axes = "".join(bone.dof[i][1] for i in turning)
    turn = Rotation.from_euler(axes, values[:, turning], degrees=skeleton.degrees)
    frame = Rotation.from_euler(bone.axis_order.lower(), bone.axis, degrees=skeleton.degrees)
    return (frame * turn * frame.inv()).as_matrix()


def _depth_first(skeleton: AsfSkeleton) -> list[str]:
    children: dict[str, list[str]] = {}
    for child, parent in skeleton.parents.items():
        children.setdefault(parent, []).append(child)
    order, stack = [], ["root"]
    while stack:
        name = stack.pop()
        order.append(name)
        stack += reversed(children.get(name, []))
    return order


def _parse_motion(path: Path, skeleton: AsfSkeleton) -> dict[str, Array]:
    rows: dict[str, list[list[float]]] = {}
    frames = 0
    for number, raw in enumerate(read_text(path).splitlines(), start=1):
        words = raw.split()
        if not words or words[0].startswith(("#", ":")):
            continue
        if len(words) == 1 and words[0].isdigit():
            frames += 1
            continue
        name, values = words[0], _numbers(path, number, words[1:])
        if name not in skeleton.bones or len(values) != len(skeleton.bones[name].dof):
            found = f"{len(values)} values for bone {name!r}"
            raise InputError(path, f"line {number}", found, "Use the ASF skeleton of the same subject")
        rows.setdefault(name, []).append(values)
    lengths = {name: len(values) for name, values in rows.items()}
    if frames == 0 or "root" not in rows or set(lengths.values()) != {frames}:
        raise InputError(path, "frames", f"{frames} frames, rows {lengths}", "The file is truncated")
    return {name: np.array(values) for name, values in rows.items()}
