"""Which joints are compared, from what they are regressed, and where the origin is.

Numbers of different protocols are not comparable; every table names its own. Joint orders: the 19 rows of
``SMPL_to_J19`` are 12 limb joints and the neck of LSP, head top, pelvis, thorax (MPII), spine, jaw and head
(Human3.6M), which HMR2.0 and TokenHMR number 25..43; the 17 rows of ``J_regressor_h36m`` are Human3.6M's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthfit.body.model import Body
from depthfit.body.unpickle import as_array, safe_load
from depthfit.errors import InputError, check_choice
from depthfit.evaluation.people import PosedPeople
from depthfit.joints import NUM_JOINTS

_FIRST_J19 = 25


@dataclass(frozen=True)
class Protocol:
    """How joints are compared.

    Attributes:
        name: As printed.
        text: What it is, in one line.
        source: ``joints`` (SMPL's 24, as posed), ``body`` (the body's own regressor on posed vertices),
            ``j19`` or ``h36m`` (a regressor file on posed vertices).
        joints: Rows that count.
        root: Rows whose midpoint is moved to the origin, joints and vertices alike.
        labels: The truth's joints are those of the label file where it has them, not regressed.
        vertices_by_joints: PA-PVE aligns meshes as their joints are aligned, not by themselves.
    """

    name: str
    text: str
    source: str
    joints: tuple[int, ...]
    root: tuple[int, ...]
    labels: bool = False
    vertices_by_joints: bool = False

    def describe(self, has_labels: bool) -> str:
        """What was done, given whether the ground truth had labelled joints."""
        if not self.labels:
            return self.text
        if has_labels:
            return f"{self.text}; true joints as labelled"
        return f"{self.text}; true joints regressed too, as this ground truth has no labelled ones"


SMPL24 = Protocol("smpl24", "24 SMPL joints as posed, pelvis at the origin", "joints", tuple(range(24)), (0,))
PROTOCOLS = {
    p.name: p
    for p in (
        SMPL24,
        Protocol("image2d", "keypoints in the image alone", "joints", tuple(range(24)), (0,)),
        Protocol(
            "tokenhmr14",
            "TokenHMR's and HMR2.0's 3DPW: joints 25..37 and 43 by SMPL_to_J19, joint 39 at the origin, "
            "vertices of the gendered body",
            "j19",
            (*range(13), 18),
            (14,),
            labels=True,
        ),
        Protocol(
            "h36m14",
            "Human3.6M's regressor on posed vertices, gendered truth, 14 LSP joints, regressed pelvis at the "
            "origin (BEDLAM's and CameraHMR's 3DPW)",
            "h36m",
            (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10),
            (0,),
        ),
        Protocol(
            "emdb24",
            "EMDB's own: 24 SMPL joints as posed, gendered truth, midpoint of the hips at the origin; PA-PVE "
            "under the joints' alignment",
            "joints",
            tuple(range(24)),
            (1, 2),
            vertices_by_joints=True,
        ),
        Protocol(
            "tokenhmr-emdb24",
            "TokenHMR's EMDB: the neutral body's 24 joints regressed from posed vertices on both sides, "
            "midpoint of the hips at the origin",
            "body",
            tuple(range(24)),
            (1, 2),
        ),
    )
}
REGRESSOR_ROWS = {"j19": 19, "h36m": 17}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: There is none.
    """
    check_choice("command line", "protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def read_regressor(path: str | Path, source: str, vertices: int) -> NDArray[np.float64]:
    """A joint regressor (rows, V): ``J_regressor_h36m.npy``, or ``SMPL_to_J19.pkl`` read as plain data.

    Args:
        source: ``j19`` or ``h36m``.
        vertices: V of the body.

    Raises:
        InputError: The file cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        fix = "Give the regressor's file; it comes with the code of the protocol's authors."
        raise InputError(path, f"regressors.{source}", "no such file", fix)
    if path.suffix == ".npy":
        try:
            matrix = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            fix = "Save a plain numeric array with numpy.save."
            raise InputError(path, "file", f"cannot be read ({error})", fix) from error
    else:
        matrix = as_array(safe_load(path), path, "regressor")
    wanted = (REGRESSOR_ROWS[source], vertices)
    if matrix.shape != wanted:
        fix = f"{source} for this body has the shape {wanted}."
        raise InputError(path, f"regressors.{source}", f"shape {matrix.shape}", fix)
    return matrix.astype(np.float64)


def protocol_points(
    wanted: Protocol,
    people: PosedPeople,
    regressor: NDArray | None,
    body: Body | None,
    labels: NDArray | None = None,
) -> NDArray[np.float64]:
    """Candidate joints (N, R, 3) m, about each person's pelvis; NaN where a mesh is not known.

    Args:
        people: Either side of the comparison.
        regressor: (R, V) for ``j19`` and ``h36m``; ``body`` whose own serves ``body``.
        labels: (N, 44, 4) of a label file, for the true side of a protocol with ``labels``. They stand in
            SMPL's frame without translation, where the pelvis is at its rest position.
    """
    if wanted.source == "joints":
        return np.asarray(people.joints, np.float64)
    if labels is not None and wanted.labels:
        assert people.rest_pelvis is not None
        return np.asarray(labels[:, _FIRST_J19:, :3], np.float64) - people.rest_pelvis[:, None]
    matrix = regressor
    if wanted.source == "body" and body is not None:
        matrix = body.joint_regressor.double().numpy()
    rows = NUM_JOINTS if wanted.source == "body" else REGRESSOR_ROWS[wanted.source]
    if people.vertices is None or matrix is None:
        return np.full((len(people.joints), rows, 3), np.nan)
    return np.einsum("rv,nvc->nrc", matrix, people.vertices, optimize=True)


def origin(wanted: Protocol, points: NDArray) -> NDArray[np.float64]:
    """(N, 3) the point of :func:`protocol_points` that the protocol moves to the origin."""
    return points[:, list(wanted.root)].mean(1)
