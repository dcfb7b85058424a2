"""A small scene, once fitted with everything written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from depthfit.run import fit_scene, load_config
from depthfit.run.scene_fit import RunSummary
from depthfit.synth import SynthConfig, make_scene
from tests.run.photo_files import pixels, write_photo

FAST = [
    "solver.rounds=2", "solver.polish=0", "solver.steps=1", "solver.grid=32",
    "solver.hypotheses=false", "depth.samples=80",
    "contour.points=60", "output.overlays=false",
]  # fmt: skip
"""Too coarse for a good fit, but through all of the code."""
CORRUPT, LONELY = "00002", ("00000", 2)
"""The image that cannot be read, and the person of whom there are no keypoints."""


def fit(scene: Path, out: Path, *settings: str) -> RunSummary:
    """Fit with the fast settings; later settings win."""
    return fit_scene(load_config([f"scene={scene}", f"output.dir={out}", *FAST, *settings]))


def rows(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "fits.npz") as data:
        return {name: data[name] for name in data.files}


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images; two people in the first and the last."""
    root = tmp_path_factory.mktemp("run") / "scene"
    config = SynthConfig(seed=3, images=3, width=320, height=240, people_weights=(0.5, 0.5))
    return Path(make_scene(config, root))


@pytest.fixture(scope="session")
def flawed(scene: Path) -> Path:
    """The scene with an image that cannot be read, and a person without keypoints."""
    root = scene.parent / "flawed"
    shutil.copytree(scene, root)
    (root / "images" / f"{CORRUPT}.png").write_bytes(b"\x89PNG and no more")
    path = root / "keypoints" / f"{LONELY[0]}_keypoints.json"
    content = json.loads(path.read_text())
    del content["people"][LONELY[1] - 1]
    path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def flawed_run(flawed: Path) -> tuple[Path, RunSummary]:
    """The output folder of the flawed scene with all that can be written, and the summary."""
    out = flawed.parent / "flawed_out"
    wanted = ("pose.space=tokens", "output.vertices=true", "output.mesh=true", "output.overlays=true")
    return out, fit(flawed, out, *wanted)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks of the real classes, where prepare looks for them."""
    from tests.perception.networks import write_tiny  # needs transformers, which not every test here does

    folder = tmp_path_factory.mktemp("networks") / "models"
    write_tiny(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two photographs."""
    for k in range(2):
        write_photo(tmp_path / "photos", f"p{k}.png", pixels(k))
    return tmp_path / "photos"
