"""Training tars of a few synthetic people, whole and damaged, and a run over them."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the index is Parquet; pip install depthfit[pseudo]")

from depthfit.pseudo import PseudoConfig, run_pseudo_gt
from depthfit.pseudo.synthetic import write_tars
from depthfit.run import load_config
from depthfit.synth import SynthConfig, make_scene

FAST = (
    "fit.solver.rounds=1", "fit.solver.polish=0", "fit.solver.steps=1", "fit.solver.grid=24",
    "fit.solver.hypotheses=false",
    "fit.depth.samples=40", "fit.contour.points=40", "fit.verdict.use=false",
    "gate.max_reprojection=null", "gate.max_depth_residual=null", "gate.max_joint_sd=null",
    "gate.max_focal_sd=null", "gate.max_prior=null", "gate.max_beta=null", "gate.min_inside=0",
    "report_people=0", "device=cpu",
)  # fmt: skip
"""Too coarse for a good fit, but through all of the code; nothing but six keypoints is asked for."""
Members = list[tuple[str, bytes]]


class Trap:
    """Pickles to a call that would leave a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('hostile_pickle_ran').touch()",))


def settings(*more: str) -> PseudoConfig:
    """The fast settings; later ones win."""
    return load_config([*FAST, *more], PseudoConfig)


def refine(source: Path, out: Path, *more: str) -> dict[str, Any]:
    """Run in this process."""
    return run_pseudo_gt(str(source), str(out), settings(*more))


def read_tar(path: Path) -> Members:
    """Names and contents of a tar."""
    with tarfile.open(path) as archive:
        found = [(m.name, archive.extractfile(m)) for m in archive if m.isreg()]
        return [(name, file.read()) for name, file in found if file is not None]


def write_tar(path: Path, members: Members) -> Path:
    """Write a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def edit_label(members: Members, key: str, person: int, **fields: Any) -> None:
    """Change fields of one person of one image in place."""
    place = next(n for n, (name, _) in enumerate(members) if name == f"{key}.data.pyd")
    entries = pickle.loads(members[place][1])
    entries[person].update(fields)
    members[place] = (members[place][0], pickle.dumps(entries))


def replace(members: Members, name: str, data: bytes) -> None:
    """Change a member in place."""
    place = next(n for n, (found, _) in enumerate(members) if found == name)
    members[place] = (name, data)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images with two people each."""
    config = SynthConfig(seed=11, images=6, width=256, height=192, people_weights=(0, 1), token_probs=False)
    config.vertices = False
    return make_scene(config, tmp_path_factory.mktemp("pseudo") / "scene", progress=False)


@pytest.fixture(scope="session")
def tars(scene: Path) -> Path:
    """Two tars of three images."""
    write_tars(scene, scene.parent / "tars", "coco17", images_a_tar=3)
    return scene.parent / "tars"


@pytest.fixture(scope="session")
def damaged(tars: Path) -> Path:
    """Three tars. 000000 is whole but for a person with few points; in the others much is wrong."""
    out = tars.parent / "damaged"
    first, second = read_tar(tars / "000000.tar"), read_tar(tars / "000001.tar")
    points = np.zeros((44, 3), np.float32)
    points[[2, 3, 4]] = [(60, 60, 1), (70, 70, 1), (80, 80, 1)]
    edit_label(first, "00000", 1, keypoints_2d=points)
    write_tar(out / "000000.tar", first)
    image = next(data for name, data in second if name == "00003.jpg")
    replace(second, "00003.jpg", image[: len(image) // 2])
    replace(second, "00004.data.pyd", pickle.dumps([Trap()]))
    edit_label(second, "00005", 0, keypoints_2d=np.full((44, 3), np.nan, np.float32))
    edit_label(second, "00005", 1, body_pose=np.full(72, np.nan, np.float32))
    write_tar(out / "000001.tar", second)
    third = [(name.replace("0000", "x/0000"), data) for name, data in read_tar(tars / "000001.tar")]
    empty = io.BytesIO()
    np.savez(empty, depth=np.full((192, 256), np.nan, np.float32))
    replace(third, "x/00005.depth.npz", empty.getvalue())
    path = write_tar(out / "000002.tar", third)
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        header = next(m.offset for m in archive if m.name == "x/00004.jpg")
    content[header : header + 512] = b"\xff" * 512
    path.write_bytes(content)
    return out


@pytest.fixture(scope="session")
def damaged_run(damaged: Path) -> tuple[Path, dict[str, Any]]:
    """The output folder of a run over the damaged tars, and its summary."""
    out = damaged.parent / "damaged_out"
    return out, refine(damaged, out, "chunk=5", "report_people=1")
