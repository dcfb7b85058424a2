"""Collect motion clips of all formats into one file of SMPL rotations, with whole clips held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from depthfit.data.amass import POSED_JOINTS, amass_files, read_amass
from depthfit.data.asf_amc import AsfSkeleton, read_amc, read_asf
from depthfit.data.bvh import read_bvh
from depthfit.data.retarget import SmplMotion, detect_up, retarget
from depthfit.errors import InputError
from depthfit.joints import JOINT_INDEX

HELD_OUT = (
    "salsa_14", "salsa_29", "martial_06", "martial_10", "indian_08",
    "01_03", "01_09", "02_01", "02_04", "02_05",
)  # fmt: skip
"""CMU clips that no training sees: both dancers of one take, martial arts, an Indian dance; climbing with
hanging and swinging, walking, jumping with balancing, punching."""

GREATEST_ANGLE = {"wrist": 100.0, "ankle": 100.0, "neck": 80.0, "head": 80.0}
"""Degrees beyond which these joints cannot go: markers were lost or swapped, and the frame is left out."""


@dataclass(frozen=True)
class MocapSummary:
    """What ``prepare_mocap`` read, kept and left out."""

    clips: int
    frames: int
    dropped_frames: int
    skipped_files: tuple[str, ...]


def read_motion(path: Path) -> SmplMotion:
    """SMPL rotations of one motion file: ``.npz`` (AMASS), ``.bvh`` or ``.amc``, the last two also gzipped.

    The skeleton of ``<subject>_<take>.amc`` is ``<subject>.asf`` in the same folder.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".npz"):
        clip = read_amass(path)
        world = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) if detect_up(clip)[2] > 0.5 else np.eye(3)
        return SmplMotion(world @ clip.rotations[:, 0], clip.rotations[:, 1:])
    if name.endswith(".bvh"):
        return retarget(read_bvh(path))
    if name.endswith(".amc"):
        return retarget(read_amc(path, _asf_of(path)))
    raise InputError(path, "extension", name, "Give .npz (AMASS), .bvh or .amc files")


def motion_files(folders: Sequence[str | Path]) -> list[Path]:
    """All motion files below the folders, sorted."""
    files: list[Path] = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(folder, "folder", "not found", "Give folders of motion files")
        for pattern in ("*.bvh", "*.bvh.gz", "*.amc", "*.amc.gz"):
            files += Path(folder).rglob(pattern)
        files += amass_files(folder)
    return sorted(files)


def prepare_mocap(
    folders: Sequence[str | Path], output: str | Path, held_out: Sequence[str] = HELD_OUT, stride: int = 1
) -> MocapSummary:
    """Write all clips below ``folders`` to one npz.

    Keys: ``rotvec`` (F, 21, 3) float16 rad, ``root`` (F, 3) float16 rad in a world with y up, ``clip`` (F,)
    index into ``names``, ``frame`` (F,) index in the file, ``held_out`` (clips,) bool. Files that
    are damaged, or whose skeleton cannot be retargeted, are named in the summary.

    Raises:
        InputError: No file could be used, or a clip to hold out is missing.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    names: list[str] = []
    skipped: list[str] = []
    dropped = 0
    for path in motion_files(folders):
        try:
            motion = read_motion(path)
            _check_finite(path, motion)
        except InputError as error:
            skipped.append(f"{path.name}: {error}")
            continue
        rotvec = (
            Rotation.from_matrix(motion.body.reshape(-1, 3, 3)).as_rotvec().reshape(-1, POSED_JOINTS - 1, 3)
        )
        root = Rotation.from_matrix(motion.root).as_rotvec()
        plausible = _plausible(rotvec)
        dropped += int((~plausible).sum())
        kept = np.flatnonzero(plausible)[::stride]
        parts.append((rotvec[kept], root[kept], np.full(len(kept), len(names)), kept))
        names.append(path.name.split(".")[0])
    missing = sorted(set(held_out) - set(names))
    if not parts or missing:
        found = f"{len(parts)} usable clips, without {missing}"
        found += f"; left out: {'; '.join(skipped)}" if skipped else ""
        raise InputError(str(folders), "clips", found, "Give the folders that hold the clips to hold out")
    rotvec, root, clip, frame = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    np.savez_compressed(
        output,
        rotvec=rotvec.astype(np.float16),
        root=root.astype(np.float16),
        clip=clip.astype(np.int16),
        frame=frame.astype(np.int32),
        names=np.array(names),
        held_out=np.isin(names, held_out),
    )
    return MocapSummary(len(names), len(rotvec), dropped, tuple(skipped))


def _check_finite(path: Path, motion: SmplMotion) -> None:
    finite = np.isfinite(motion.root).all((1, 2)) & np.isfinite(motion.body).all((1, 2, 3))
    if not finite.all():
        found = f"{int((~finite).sum())} of {len(motion.root)} frames hold values that are not finite"
        raise InputError(path, "rotations", found, "Give an undamaged file")


def _plausible(rotvec: np.ndarray) -> np.ndarray:
    """(F,) whether no joint of ``GREATEST_ANGLE`` is beyond it."""
    angle = np.degrees(np.linalg.norm(rotvec, axis=-1))
    ok = np.ones(len(rotvec), dtype=bool)
    for name, index in JOINT_INDEX.items():
        limit = GREATEST_ANGLE.get(name.split("_")[-1])
        if limit is not None and 1 <= index < POSED_JOINTS:
            ok &= angle[:, index - 1] <= limit
    return ok


def _asf_of(path: Path) -> AsfSkeleton:
    return read_asf(path.parent / f"{path.name.split('_')[0]}.asf")
