"""Write a body as the pickle that ``smplx`` loads."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from scipy import sparse

from depthfit.body.model import Body
from depthfit.joints import NUM_JOINTS, SMPL_PARENTS

_PROTOCOL = 2
"""What Python 2 wrote and every reader of SMPL's files understands."""


def export_smplx(body: Body, path: str | Path) -> None:
    """Write ``body`` to ``path`` in the layout of SMPL's own files.

    ``smplx.SMPLLayer(path)`` gives the vertices of :meth:`Body.forward` with the pelvis at its rest position.
    The keypoint regressors go along, so :func:`depthfit.body.load.load_body` reads back the same body.
    """
    body = body.to(device="cpu")
    posedirs = body.posedirs
    count = body.num_vertices
    root_parent = np.iinfo(np.uint32).max
    fields = {
        "v_template": body.v_template.numpy(),
        "shapedirs": body.shapedirs.numpy(),
        "posedirs": np.zeros((count, 3, 9 * (NUM_JOINTS - 1)), np.float32)
        if posedirs is None
        else posedirs.numpy(),
        "J_regressor": sparse.csc_matrix(body.joint_regressor.numpy()),
        "J": body.joint_template.numpy(),
        "weights": body.weights.numpy(),
        "kintree_table": np.array([[root_parent, *SMPL_PARENTS[1:]], range(NUM_JOINTS)], dtype=np.uint32),
        "f": body.faces.numpy().astype(np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "keypoint_regressor": sparse.csc_matrix(body.keypoint_regressor.numpy()),
        "keypoint_joint": body.keypoint_joint.numpy(),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        pickle.dump(fields, file, protocol=_PROTOCOL)
