"""Bodies of saved results: as they were stored, or posed again from their parameters. Nothing is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.errors import InputError

Table = Mapping[str, np.ndarray]
Array = NDArray[np.floating]
PARAMETERS = ("global_orient", "body_pose", "betas", "transl")


@dataclass(frozen=True)
class PosedPeople:
    """N people, the pelvis at the origin, axes of the camera.

    Attributes:
        joints: (N, 24, 3) m; vertices: (N, V, 3) m, or ``None`` where they are not known.
        pelvis: (N, 3) m, in the camera's frame; NaN where it is not known.
        rest_pelvis: (N, 3) m, pelvis of the shaped rest mesh, where SMPL's own frame leaves it; ``None``
            for stored bodies.
    """

    joints: Array
    vertices: Array | None
    pelvis: Array
    rest_pelvis: Array | None = None


@dataclass
class BodySet:
    """The bodies of a model by gender, loaded when first asked for.

    Attributes:
        source: ``open``, a SMPL file, or the folder that holds SMPL_{GENDER}.pkl.
        gender: Of people for whom no gender is given.
        true_source: Of the ground truth's bodies; ``None`` takes ``source``. For ``source`` files of one
            gender whose truths are gendered.
    """

    source: str | Path = "open"
    gender: str = "neutral"
    true_source: str | Path | None = None
    _loaded: dict[tuple[str, str], Body] = field(default_factory=dict, repr=False)

    def get(self, gender: str | None = None, truth: bool = False) -> Body:
        """The body of ``gender`` (``None`` = that of the set).

        Raises:
            InputError: There is no such file.
        """
        chosen = self.gender if gender is None else gender
        source = self.true_source if truth and self.true_source is not None else self.source
        key = (str(source), chosen)
        if key not in self._loaded:
            self._loaded[key] = load_body(source, chosen)
        return self._loaded[key]


def stored(table: Table, index: NDArray, prefix: str = "") -> PosedPeople:
    """Rows ``index`` of a table with ``joints`` and perhaps ``vertices``, in the camera's frame."""
    joints = table[prefix + "joints"][index]
    pelvis = joints[:, 0]
    vertices = table[prefix + "vertices"][index] if prefix + "vertices" in table else None
    relative = None if vertices is None else vertices - pelvis[:, None]
    return PosedPeople(joints - pelvis[:, None], relative, pelvis)


@torch.no_grad()
def posed(
    table: Table, index: NDArray, bodies: BodySet, prefix: str = "", truth: bool = False
) -> PosedPeople:
    """Rows ``index`` of a table with ``PARAMETERS``, posed by bodies of the table's ``gender`` column.

    Args:
        table: global_orient (N, 3) and body_pose (N, 69) rad, betas (N, B), transl (N, 3) m of the pelvis.
        truth: Use the ground truth's bodies.
    """
    root, pose, betas, transl = (table[prefix + name][index] for name in PARAMETERS)
    genders = table["gender"][index].astype(str) if truth and "gender" in table else np.full(len(index), "")
    count = len(index)
    joints, rest = np.zeros((count, 24, 3)), np.zeros((count, 3))
    vertices: Array | None = None
    for gender in np.unique(genders):
        body, rows = bodies.get(gender or None, truth), np.flatnonzero(genders == gender)
        skeleton, surface = pose_body(body, root[rows], pose[rows], betas[rows])
        if vertices is None:
            vertices = np.zeros((count, body.num_vertices, 3), np.float32)
        joints[rows], rest[rows] = skeleton[0], skeleton[1]
        vertices[rows] = surface
    return PosedPeople(joints, vertices, transl, rest)


def pose_body(body: Body, root: Array, pose: Array, betas: Array) -> tuple[tuple[NDArray, NDArray], NDArray]:
    """Joints (N, 24, 3) and rest pelvis (N, 3), and vertices (N, V, 3) m, of axis-angle rows.

    The posed pelvis is at the origin."""
    skeleton, vertices = body.forward(
        so3.exp(_tensor(root)), so3.exp(_tensor(pose).unflatten(-1, (23, 3))), shape_of(body, betas)
    )
    return (skeleton.position.numpy(), skeleton.rest[:, 0].numpy()), vertices.numpy()


def shape_of(body: Body, betas: Array) -> Tensor:
    """(N, B) of the body's B shape directions: further ones of the file are left out, missing ones zero."""
    values = _tensor(betas)[:, : body.num_betas]
    return torch.nn.functional.pad(values, (0, body.num_betas - values.shape[1]))


def check_topology(source: str | Path, ours: PosedPeople, theirs: PosedPeople) -> None:
    """Meshes can be compared vertex by vertex only if they are of one topology.

    Raises:
        InputError: They are not.
    """
    if ours.vertices is None or theirs.vertices is None:
        return
    a, b = ours.vertices.shape[1], theirs.vertices.shape[1]
    if a != b:
        fix = "Name the body of the ground truth: models.body=FOLDER with SMPL_NEUTRAL.pkl and the others."
        raise InputError(source, "vertices", f"{a} in the fit, {b} in the ground truth", fix)


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))
