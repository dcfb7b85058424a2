"""Load a body by name or file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from depthfit.body.asset import read_asset
from depthfit.body.model import Body
from depthfit.errors import InputError

GENDERS = ("neutral", "male", "female")
OPEN = "open"


def load_body(name_or_path: str | Path = OPEN, gender: str = "neutral") -> Body:
    """The shipped open body."""
    if gender not in GENDERS:
        raise InputError("models.gender", "gender", repr(gender), f"Use one of: {', '.join(GENDERS)}.")
    if str(name_or_path) != OPEN:
        raise InputError("models.body", "body", repr(str(name_or_path)), "Use 'open'.")
    return _open_body(gender)


def load_extra_shapedirs() -> Tensor:
    """(V, 3, E) m: shape directions of the open body beside those that fits know."""
    return _tensor(read_asset().extra_shapedirs)


def _open_body(gender: str) -> Body:
    asset = read_asset()
    space = asset.spaces[gender]
    return Body(
        name=f"open-{gender}",
        v_template=_tensor(space.v_template),
        shapedirs=_tensor(space.shapedirs),
        posedirs=None,
        joint_regressor=_tensor(asset.joint_regressor),
        weights=_tensor(asset.weights),
        faces=torch.from_numpy(np.asarray(asset.faces)).long(),
        keypoint_regressor=_tensor(asset.keypoint_regressor),
        keypoint_joint=_tensor(asset.keypoint_joint),
    )


def _tensor(values: NDArray | sparse.csr_matrix) -> Tensor:
    dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
    return torch.from_numpy(np.ascontiguousarray(dense, dtype=np.float32))
