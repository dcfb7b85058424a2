"""The example runs on a scene as it stands, and its camera puts people where they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import torch

from depthfit.camera import full_image_translation, image_center, intrinsics, project, regressor_focal
from depthfit.evidence.mask import remove_specks
from depthfit.evidence.predictions import read_predictions
from depthfit.evidence.scene import read_scene
from depthfit.synth import SynthConfig, make_scene

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_regressor.py"
SIZE = (320, 240)


def test_people_are_where_their_masks_are(tmp_path: Path) -> None:
    config = SynthConfig(seed=5, images=2, width=SIZE[0], height=SIZE[1], people_weights=(1.0,))
    root = Path(make_scene(config, tmp_path / "scene"))
    runpy.run_path(str(EXAMPLE))["main"](root, "coco17")
    found, bad = read_predictions(root / "predictions.npz")
    assert bad == {}
    assert found.regressor is None
    focal = regressor_focal(*SIZE).expand(2)
    transl = full_image_translation(
        torch.from_numpy(found.pred_cam),
        torch.from_numpy(found.box_center),
        torch.from_numpy(found.box_size),
        torch.tensor([SIZE]).expand(2, 2),
        focal,
    )
    xy = project(transl[:, None], intrinsics(focal, image_center(*SIZE)))[:, 0].numpy()
    scene = read_scene(root, "coco17")
    for n, name in enumerate(found.imgname):
        labels = scene.read(str(name)).labels
        assert labels is not None
        rows, columns = np.nonzero(remove_specks(labels == found.person[n]))
        middle = [(columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2]
        np.testing.assert_allclose(xy[n], middle, atol=1e-3)
