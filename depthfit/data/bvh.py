"""Biovision BVH motion files, plain or gzipped.

Every joint lists its own channels; its rotation is the product of the channels' rotations in that order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.data.clip import Array, Clip, read_text
from depthfit.errors import InputError


@dataclass
class _Hierarchy:
    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


def read_bvh(path: str | Path) -> Clip:
    """Read one clip. Lengths stay in the file's unit, which BVH does not name.

    Raises:
        InputError: The file is missing, truncated, or not BVH.
    """
    path = Path(path)
    tokens = read_text(path).split()
    if tokens[:1] != ["HIERARCHY"] or "MOTION" not in tokens:
        raise InputError(path, "HIERARCHY/MOTION", "sections not found", "Give a BVH file")
    motion = tokens.index("MOTION")
    try:
        tree = _parse_hierarchy(path, tokens[1:motion])
        values, seconds = _parse_motion(path, tokens[motion + 1 :], sum(len(c) for c in tree.channels))
        rotations, translation = _apply_channels(path, tree, values)
    except (ValueError, IndexError) as error:
        raise InputError(
            path, "HIERARCHY/MOTION", f"cannot be read ({error})", "The file is damaged"
        ) from error
    return Clip(
        names=tuple(tree.names),
        parents=tuple(tree.parents),
        offsets=np.array(tree.offsets, dtype=np.float64),
        rotations=rotations,
        translation=translation,
        fps=1 / seconds,
    )


def _parse_hierarchy(path: Path, tokens: list[str]) -> _Hierarchy:
    tree, stack, position = _Hierarchy(), [-1], 0
    while position < len(tokens):
        word = tokens[position]
        if word in ("ROOT", "JOINT", "End"):
            parent = stack[-1]
            tree.names.append(f"{tree.names[parent]}_end" if word == "End" else tokens[position + 1])
            tree.parents.append(parent)
            tree.offsets.append([0.0, 0.0, 0.0])
            tree.channels.append([])
            stack.append(len(tree.names) - 1)
            position += 3  # the name (or "Site") and the opening brace
        elif word == "OFFSET":
            tree.offsets[stack[-1]] = [float(v) for v in tokens[position + 1 : position + 4]]
            position += 4
        elif word == "CHANNELS":
            count = int(tokens[position + 1])
            if count < 0:
                raise InputError(
                    path, f"CHANNELS of {tree.names[stack[-1]]}", str(count), "The file is damaged"
                )
            tree.channels[stack[-1]] = tokens[position + 2 : position + 2 + count]
            position += 2 + count
        elif word == "}":
            stack.pop()
            position += 1
        else:
            raise InputError(path, "HIERARCHY", f"unexpected word {word!r}", "The file is damaged")
    if tree.parents.count(-1) != 1:
        raise InputError(path, "ROOT", f"{tree.parents.count(-1)} roots", "Give a file with one root")
    return tree


def _parse_motion(path: Path, tokens: list[str], width: int) -> tuple[Array, float]:
    header = [t.rstrip(":") for t in tokens[:5]]
    if header[:1] != ["Frames"] or header[2:4] != ["Frame", "Time"]:
        raise InputError(path, "MOTION", f"header {tokens[:5]}", "Expected 'Frames: n' and 'Frame Time: s'")
    frames, seconds = int(header[1]), float(header[4])
    values = np.array(tokens[5:], dtype=np.float64)
    if values.size != frames * width or frames == 0 or seconds <= 0:
        found = f"{values.size} numbers for {frames} frames of {width} channels at {seconds} s"
        raise InputError(path, "MOTION", found, "The file is truncated or its header is wrong")
    return values.reshape(frames, width), seconds


def _apply_channels(path: Path, tree: _Hierarchy, values: Array) -> tuple[Array, Array]:
    frames = len(values)
    rotations = np.broadcast_to(np.eye(3), (frames, len(tree.names), 3, 3)).copy()
    translation = np.broadcast_to(np.array(tree.offsets[0]), (frames, 3)).copy()
    column = 0
    for j, channels in enumerate(tree.channels):
        block = values[:, column : column + len(channels)]
        column += len(channels)
        turning = [i for i, name in enumerate(channels) if name.endswith("rotation")]
        moving = [i for i, name in enumerate(channels) if name.endswith("position")]
        if len(turning) + len(moving) != len(channels):
            raise InputError(path, f"CHANNELS of {tree.names[j]}", str(channels), "Unknown channel name")
        if turning:
            axes = "".join(channels[i][0] for i in turning).upper()
            rotations[:, j] = Rotation.from_euler(axes, block[:, turning], degrees=True).as_matrix()
        if moving and j > 0:
            _refuse_sliding(path, tree.names[j], block[:, moving])
        elif moving:
            translation[:, ["XYZ".index(channels[i][0]) for i in moving]] = block[:, moving]
    return rotations, translation


def _refuse_sliding(path: Path, name: str, positions: Array) -> None:
    """A joint that slides against its parent is no joint of a body; constant channels repeat OFFSET."""
    if np.ptp(positions, axis=0).max() > 1e-3:
        found = "position channels that change over time"
        raise InputError(path, f"CHANNELS of {name}", found, "Export with rotations below the root only")
