"""``depthfit check``: what is here, what is damaged, and where to get the rest."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from depthfit.body.export import export_smplx
from depthfit.body.load import load_body
from depthfit.cli.main import main
from depthfit.run import check, load_config
from depthfit.run.check import CheckConfig, check_assets, report
from depthfit.tokens.load import load_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs"
EXPECTED = (
    "SMPL_NEUTRAL.pkl", "SMPL_MALE.pkl", "SMPL_FEMALE.pkl", "TokenHMR", "HMR2.0", "tokenizer.pth",
    "smpl_mean_params.npz", "SMPL_to_J19.pkl", "J_regressor_h36m.npy", "Depth Pro", "ViTPose", "RT-DETR",
    "SAM",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other program's files, and an empty cache of the hub."""
    huggingface_hub = pytest.importorskip(
        "huggingface_hub", reason='needs pip install "depthfit[perception]"'
    )
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(check, "OWN_CACHE", tmp_path / "other")
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **kw: download(name, cache_dir=tmp_path / "hub", **kw),
    )


def states(folder: Path) -> dict[str, check.AssetState]:
    return {state.asset.name.split(" (")[0]: state for state in check_assets(CheckConfig(str(folder)))}


def test_every_asset_says_what_a_user_needs_to_know(tmp_path: Path) -> None:
    found = check_assets(CheckConfig(str(tmp_path)))
    text = report(found, CheckConfig(str(tmp_path)))
    for name in EXPECTED:
        (state,) = [s for s in found if s.asset.name.startswith(name)]
        assert state.path is None or state.asset.name.startswith("HMR2.0")
        asset = state.asset
        assert all((asset.purpose, asset.places, asset.licence, asset.without))
        assert asset.page.startswith("https://")
        assert f"{asset.name}: not found" in text or state.path is not None
        assert str(tmp_path) in asset.places


def test_well_formed_and_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "deep" / "J_regressor_h36m.npy", np.zeros((17, 6890)))
    np.save(tmp_path / "SMPL_NEUTRAL.npy", np.zeros(3))
    (tmp_path / "SMPL_MALE.pkl").write_bytes(pickle.dumps({"v_template": np.zeros((3, 3))}))
    (tmp_path / "SMPL_FEMALE.pkl").write_bytes(b"not a pickle")
    (tmp_path / "tokenizer.pth").write_bytes(b"PK")
    np.savez(tmp_path / "smpl_mean_params.npz", pose=np.zeros(144), shape=np.zeros(10))
    (tmp_path / "tokenhmr_model_latest.ckpt").write_bytes(b"x")
    found = states(tmp_path)
    regressor = found["J_regressor_h36m.npy"]
    assert regressor.fault is None
    assert regressor.path == tmp_path / "deep" / "J_regressor_h36m.npy"
    assert found["SMPL_NEUTRAL.pkl"].path is None
    for name, words in (
        ("SMPL_MALE.pkl", "missing"),
        ("SMPL_FEMALE.pkl", "SMPL_FEMALE.pkl"),
        ("tokenizer.pth", "tokenizer.pth"),
        ("smpl_mean_params.npz", "cam: missing"),
        ("TokenHMR", "model_config.yaml"),
    ):
        fault = found[name].fault
        assert fault is not None, name
        assert words in fault


def test_the_configuration_of_smpl_needs_no_more_than_the_body_that_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "smpl").mkdir(parents=True)
    export_smplx(load_body(), tmp_path / "models" / "smpl" / "SMPL_NEUTRAL.pkl")
    config = load_config([str(CONFIGS / "smpl.yaml")])
    monkeypatch.chdir(tmp_path)
    body = states(Path(CheckConfig().folder))["SMPL_NEUTRAL.pkl"]
    assert body.fault is None
    assert body.path == Path("models") / "smpl" / "SMPL_NEUTRAL.pkl"
    assert "configs/smpl.yaml" in body.asset.purpose
    assert load_body(config.models.body, config.models.gender).name == "smpl-neutral"
    load_tokenizer(config.models.tokenizer)


def test_networks_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason='needs pip install "depthfit[perception]"')
    from tests.perception.networks import FOLDERS, write_tiny

    write_tiny(tmp_path)
    weights = tmp_path / FOLDERS["masks"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    found = states(tmp_path)
    for name in ("Depth Pro", "ViTPose++ huge", "RT-DETR R50"):
        assert found[name].fault is None
        assert found[name].path is not None
    fault = found["SAM ViT-H"].fault
    assert fault is not None
    assert "cannot be loaded" in fault


def test_at_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"folder={tmp_path}"]) == 0
    assert "None is needed for the demo" in capsys.readouterr().out
    (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(b"x")
    assert main(["check", f"folder={tmp_path}"]) == 1
    assert "SMPL_NEUTRAL.pkl: cannot be used" in capsys.readouterr().out
    assert main(["check", f"folder={tmp_path}", "load=false"]) == 0
    assert main(["check", "--help"]) == 0
