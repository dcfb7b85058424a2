"""The open body exported as SMPL files of three genders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from depthfit.body.export import export_smplx
from depthfit.body.load import load_body
from depthfit.evaluation.people import BodySet

REST_PELVIS = {"neutral": (0.0, -0.22, 0.03), "male": (0.0, -0.24, 0.03), "female": (0.01, -0.21, 0.02)}
"""m: the open body's rest pelvis is the origin, which would hide every mistake with it; SMPL's is not."""
PELVIS_PER_BETA = (0.002, 0.012, -0.004)
"""m per unit of the first shape direction."""


@pytest.fixture(scope="session")
def smpl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smpl")
    for gender, pelvis in REST_PELVIS.items():
        body = load_body("open", gender)
        shapedirs = body.shapedirs.clone()
        shapedirs[:, :, 0] += torch.tensor(PELVIS_PER_BETA)
        moved = body.replace(v_template=body.v_template + torch.tensor(pelvis), shapedirs=shapedirs)
        export_smplx(moved, folder / f"SMPL_{gender.upper()}.pkl")
    return folder


@pytest.fixture(scope="session")
def body_set(smpl_folder: Path) -> BodySet:
    return BodySet(smpl_folder)
