"""A benchmark uses a scene that is there only if it is the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from depthfit.bench.accuracy import AccuracyConfig, bench_scene, run_accuracy
from depthfit.bench.numerics import NumericsConfig, run_numerics
from depthfit.bench.paradox import ParadoxConfig, run_paradox
from depthfit.bench.scenes import ensure_scene
from depthfit.errors import InputError
from depthfit.synth import SynthConfig, make_scene

SMALL = replace(
    bench_scene(), width=320, height=240, token_probs=False, images=1, seed=101, people_weights=(1.0,)
)
Bench = Callable[[str, SynthConfig], object]


def _gate(out: str, scene: SynthConfig) -> object:
    pytest.importorskip("pyarrow", reason="the index is Parquet; pip install depthfit[pseudo]")
    from depthfit.bench.gate import GateBenchConfig, run_gate

    return run_gate(GateBenchConfig(out, images=1, seeds=[101], scene=scene))


def _pseudo(out: str, scene: SynthConfig) -> object:
    pytest.importorskip("pyarrow", reason="the index is Parquet; pip install depthfit[pseudo]")
    from depthfit.bench.pseudo import PseudoBenchConfig, run_pseudo

    return run_pseudo(PseudoBenchConfig(out, images=1, scene=scene))


BENCHES: dict[str, Bench] = {
    "accuracy": lambda out, scene: run_accuracy(AccuracyConfig(out, 1, 101, fits=["identity"], scene=scene)),
    "paradox": lambda out, scene: run_paradox(ParadoxConfig(out, 1, 101, scene=scene)),
    "numerics": lambda out, scene: run_numerics(NumericsConfig(out, 1, 101, scene=scene)),
    "gate": _gate,
    "pseudo": _pseudo,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    for name in ("scene_101_1", "scene_1"):
        make_scene(SMALL, out / name, progress=False)
    return out


@pytest.mark.parametrize("name", list(BENCHES))
def test_a_scene_of_other_settings_is_refused_by_name(name: str, made: Path) -> None:
    """Figures of another prediction would be printed as those of this one."""
    worse = replace(SMALL.noise.prediction, pose_rad=0.3)
    other = replace(SMALL, noise=replace(SMALL.noise, prediction=worse))
    with pytest.raises(InputError, match="scene of other settings"):
        BENCHES[name](str(made), other)


def test_the_scene_that_was_asked_for_is_taken_as_it_is(made: Path) -> None:
    folder = made / "scene_101_1"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert ensure_scene(SMALL, folder) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    saved = (folder / "synth.yaml").read_text()
    (folder / "synth.yaml").unlink()
    with pytest.raises(InputError, match=r"synth\.yaml"):
        ensure_scene(SMALL, folder)
    (folder / "synth.yaml").write_text(saved)
