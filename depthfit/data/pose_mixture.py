"""A Gaussian mixture of body poses, fitted on motion capture: the population prior of SMPLify.

Source of the prior: Bogo et al., "Keep it SMPL" (ECCV 2016), section 3.2. The mixture is over the 63 numbers
of the joints' rotation vectors (rad).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthfit import so3
from depthfit.errors import InputError
from depthfit.joints import NUM_BODY_JOINTS, SMPL_MIRROR
from depthfit.struct import TensorStruct

MIXTURE_FILE = Path(__file__).parent.parent / "assets" / "pose_mixture.npz"
SIZE = 3 * NUM_BODY_JOINTS
LEAST_SIGMA_RAD = 0.01
"""rad added to every direction's spread, in quadrature, lest joints that hardly move become
infinitely stiff."""


@dataclass(frozen=True)
class PoseMixture(TensorStruct):
    """K Gaussians over rotation vectors of joints 1..21.

    Attributes:
        log_weight: (K,).
        mean: (K, 63) rad.
        scale: (K, 63, 63) lower Cholesky factors of the covariances, rad.
    """

    log_weight: Tensor
    mean: Tensor
    scale: Tensor


def load_pose_mixture(components: int, path: str | Path = MIXTURE_FILE) -> PoseMixture:
    """The shipped mixture of that many ``components``, float32.

    Raises:
        InputError: The file holds no such mixture.
    """
    with np.load(path, allow_pickle=False) as data:
        name = f"weight_{components}"
        if name not in data.files:
            held = sorted(int(k.removeprefix("weight_")) for k in data.files if k.startswith("weight_"))
            raise InputError(path, "components", str(components), f"Use one of: {held}.")
        weight, mean, packed = (data[f"{key}_{components}"] for key in ("weight", "mean", "scale"))
    scale = np.zeros((components, SIZE, SIZE), np.float32)
    rows, columns = np.tril_indices(SIZE)
    scale[:, rows, columns] = packed
    return PoseMixture(torch.from_numpy(weight).log(), torch.from_numpy(mean), torch.from_numpy(scale))


def mirrored(poses: Tensor) -> Tensor:
    """Mirror images of poses (N, 21, 3, 3): left and right swap, turns about y and z reverse."""
    swap = torch.tensor([SMPL_MIRROR[j] - 1 for j in range(1, NUM_BODY_JOINTS + 1)])
    flip = torch.diag(poses.new_tensor([-1.0, 1.0, 1.0]))
    return flip @ poses[:, swap] @ flip


def fit_pose_mixture(poses: Tensor, components: int, seed: int) -> PoseMixture:
    """Expectation maximisation (scikit-learn) on poses (F, 21, 3, 3) and their mirror images."""
    from sklearn.mixture import GaussianMixture

    both = torch.cat([poses, mirrored(poses)])
    vectors = so3.log(both).flatten(1).double().numpy()
    model = GaussianMixture(components, reg_covar=LEAST_SIGMA_RAD**2, random_state=seed).fit(vectors)
    scale = np.linalg.cholesky(model.covariances_)
    return PoseMixture(*(torch.from_numpy(v).float() for v in (np.log(model.weights_), model.means_, scale)))


def save_pose_mixtures(
    mixtures: Mapping[int, PoseMixture], path: str | Path, metadata: Mapping[str, Any]
) -> None:
    """Write mixtures, by their number of components, to one npz; ``metadata`` says how they were made."""
    rows, columns = np.tril_indices(SIZE)
    arrays: dict[str, Any] = {"metadata": np.array(json.dumps(dict(metadata)))}
    for count, mixture in mixtures.items():
        arrays[f"weight_{count}"] = mixture.log_weight.exp().numpy()
        arrays[f"mean_{count}"] = mixture.mean.numpy()
        arrays[f"scale_{count}"] = mixture.scale.numpy()[:, rows, columns]
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **arrays)
