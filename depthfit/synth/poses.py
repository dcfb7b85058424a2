"""Where the poses of synthetic people come from: shipped motion capture, and random poses within limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from scipy.spatial.transform import Rotation
from torch import Tensor

from depthfit import so3
from depthfit.data.random_poses import sample_poses
from depthfit.errors import InputError
from depthfit.joints import NUM_BODY_JOINTS

LIBRARY = Path(__file__).resolve().parent.parent / "assets" / "poses.npz"
KINDS = ("everyday", "hard", "random")
TURNED_SHARE = 0.3
"""Share of hard and random poses that are turned over any way, as in falls, dives and handstands."""
HAND_RAD = 0.15
"""Sd of the components of the hands' rotations, which motion capture does not give."""
_SEED_RANGE = 2**31


class PoseSource:
    """Draws poses of the three ``KINDS``."""

    def __init__(self, mix: tuple[float, float, float], library: str | Path = LIBRARY) -> None:
        """Read the library.

        Args:
            mix: Relative frequency of each of ``KINDS``.
            library: npz of P poses: ``rotvec`` (P, 21, 3) rad, ``root`` (P, 3) rad in a world with y up, and
                ``kind`` (P,) everyday or hard.

        Raises:
            InputError: The library cannot be used, or lacks a kind that ``mix`` asks for.
        """
        path = Path(library)
        if not path.is_file():
            raise InputError(path, "file", "missing", "Install depthfit again; the file is part of it.")
        with np.load(path, allow_pickle=False) as data:
            for name in ("rotvec", "root", "kind"):
                if name not in data:
                    raise InputError(path, name, "missing", "Use the pose library of this version.")
            self._rotvec, self._root, kind = (data[name] for name in ("rotvec", "root", "kind"))
        self._rows = {name: np.flatnonzero(kind == name) for name in KINDS[:2]}
        for name, share in zip(KINDS, mix, strict=True):
            if share > 0 and name != "random" and not len(self._rows[name]):
                raise InputError(path, "kind", f"no {name} pose", f"Set the share of {name} poses to zero.")
        self._shares = np.array(mix) / sum(mix)

    def draw(self, rng: Generator) -> tuple[Tensor, Tensor, str]:
        """A pose (23, 3, 3) and root (3, 3), float32, in a world with y up, and its kind.

        The heading is random. Everyday people keep the tilt that they were recorded with; some of the others
        are turned over any way.
        """
        kind = KINDS[rng.choice(len(KINDS), p=self._shares)]
        if kind == "random":
            generator = torch.Generator().manual_seed(int(rng.integers(_SEED_RANGE)))
            body, root = sample_poses(1, generator)[0], torch.eye(3)
        else:
            row = rng.choice(self._rows[kind])
            body = so3.exp(torch.as_tensor(self._rotvec[row].astype(np.float32)))
            root = so3.exp(torch.as_tensor(self._root[row].astype(np.float32)))
        turned, heading = rng.random() < TURNED_SHARE, rng.uniform(-np.pi, np.pi)
        any_way = Rotation.random(random_state=rng).as_matrix()
        if turned and kind != "everyday":
            root = torch.as_tensor(any_way, dtype=torch.float32) @ root
        root = so3.exp(torch.tensor([0.0, heading, 0.0], dtype=torch.float32)) @ root
        hands = so3.exp(torch.as_tensor(HAND_RAD * rng.normal(size=(23 - NUM_BODY_JOINTS, 3))).float())
        return torch.cat([body, hands]), root, kind
