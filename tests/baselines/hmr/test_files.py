"""Official files: read whole, strictly and safely, or refused with the reason."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from baselines import REGRESSORS
from baselines.hmr.model_config import read_model_config
from baselines.hmr.regressor import Regressor
from baselines.hmr.release import RegressorFiles, choose_precision, find_files, load_regressor, place
from depthfit.errors import InputError
from tests.baselines.hmr.networks import (
    BACKBONE,
    DECODER,
    NAMES,
    checkpoint,
    model_config,
    network,
    write_files,
)
from tests.baselines.hmr.seeded import crops

CPU = torch.device("cpu")


def load(name: str, folder: Path, **settings: Any) -> Regressor:
    release = REGRESSORS[name]
    found = find_files(release, RegressorFiles(folder=str(folder), **settings))
    return load_regressor(release, found, CPU, backbone=BACKBONE)


def spoil_state(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content["state_dict"])
    torch.save(content, path)


@pytest.mark.parametrize("name", NAMES)
def test_files_in_the_official_formats_give_the_network(name: str, tmp_path: Path) -> None:
    write_files(tmp_path / "somewhere" / "below", name)
    loaded, images = load(name, tmp_path), crops(1)
    for key, value in network(name).state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key
    assert not loaded.network.training
    assert not any(p.requires_grad for p in loaded.network.parameters())
    assert (loaded(images).token_probs is not None) == REGRESSORS[name].tokens


def test_settings_in_a_checkpoint_are_read_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning stores the program's configuration: of omegaconf, or of yacs, which need not be there."""
    from omegaconf import DictConfig

    config = OmegaConf.create({"MODEL": {"A": [1, 2.5, None, True], "B": "x"}, "C": "${MODEL.B}"})
    assert isinstance(config, DictConfig)
    path = write_files(tmp_path, "hmr2")
    torch.save(checkpoint("hmr2", {"cfg": config, "is_train_state": True}), path)
    load("hmr2", tmp_path)

    def __init__(self: dict, content: dict) -> None:
        dict.__init__(self, content)
        self.__dict__.update({"__immutable__": True, "__deprecated_keys__": set(), "__renamed_keys__": {}})

    node = type("CfgNode", (dict,), {"__init__": __init__, "__module__": "yacs.config"})
    module = types.ModuleType("yacs.config")
    module.CfgNode = node  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        torch.save(checkpoint("hmr2", {"cfg": node({"MODEL": node({"A": 1})})}), path)
    load("hmr2", tmp_path)


class Hostile:
    """Makes a folder when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.target,)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    path, target = write_files(tmp_path, "hmr2"), tmp_path / "was_here"
    torch.save(checkpoint("hmr2", {"cfg": Hostile(target)}), path)
    with pytest.raises(InputError, match=r"epoch=35.*needs to run code.*mkdir"):
        load("hmr2", tmp_path)
    assert not target.exists()


def test_missing_left_over_and_misshapen_weights_are_listed(tmp_path: Path) -> None:
    path = write_files(tmp_path, "tokenhmr")
    spoil_state(path, lambda state: state.pop("backbone.last_norm.bias"))
    spoil_state(path, lambda state: state.update({"backbone.blocks.2.norm1.weight": torch.zeros(32)}))
    spoil_state(path, lambda state: state.update({"smpl_head.deccam.bias": torch.zeros(4)}))
    with pytest.raises(InputError) as caught:
        load("tokenhmr", tmp_path)
    assert caught.value.field == "weights"
    assert caught.value.found == (
        "missing: backbone.last_norm.bias; left over: backbone.blocks.2.norm1.weight; "
        "of another shape: smpl_head.deccam.bias (4,) instead of (3,)"
    )


def test_the_other_regressors_files_are_told_apart(tmp_path: Path) -> None:
    write_files(tmp_path / "tokenhmr", "tokenhmr")
    write_files(tmp_path / "hmr2", "hmr2")
    for name, other in (("tokenhmr", "hmr2"), ("hmr2", "tokenhmr")):
        checkpoint_file = tmp_path / other / REGRESSORS[other].checkpoint
        with pytest.raises(InputError, match=rf"SMPL_HEAD.TYPE.*init={other}"):
            load(name, tmp_path, checkpoint=str(checkpoint_file))
        config = str(tmp_path / name / "model_config.yaml")
        with pytest.raises(InputError, match=r"missing: .*left over: .*belong together"):
            load(name, tmp_path, checkpoint=str(checkpoint_file), config=config)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = write_files(tmp_path, "hmr2")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole torch file"):
        load("hmr2", tmp_path)
    # One flipped bit in the middle of a weight: a number like any other, but for the check sum.
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x40
    path.write_bytes(bytes(flipped))
    with pytest.raises(InputError, match=r"damaged.*Download it again"):
        load("hmr2", tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="not a whole torch file"):
        load("hmr2", tmp_path)
    torch.save({"model": {}, "epoch": 3}, path)
    with pytest.raises(InputError, match=r"state_dict.*has model, epoch"):
        load("hmr2", tmp_path)
    torch.save(checkpoint("hmr2"), path)
    spoil_state(path, lambda state: state["backbone.pos_embed"].fill_(torch.nan))
    with pytest.raises(InputError, match=r"not finite: backbone\.pos_embed"):
        load("hmr2", tmp_path)


def test_the_mean_person_comes_from_its_own_file_where_a_checkpoint_lacks_it(tmp_path: Path) -> None:
    path = write_files(tmp_path, "hmr2")
    expected = network("hmr2").smpl_head
    names = ("init_body_pose", "init_betas", "init_cam")
    spoil_state(path, lambda state: [state.pop(f"smpl_head.{name}") for name in names])
    with pytest.raises(InputError, match=r"init_cam.*there is no smpl_mean_params.npz.*mean_params=FILE"):
        load("hmr2", tmp_path)
    arrays = {
        "pose": expected.init_body_pose[0].double().numpy(),
        "shape": expected.init_betas[0].numpy(),
        "cam": expected.init_cam[0].numpy(),
    }
    np.savez(tmp_path / "smpl_mean_params.npz", **arrays)
    head = load("hmr2", tmp_path).network.smpl_head
    for name in names:
        torch.testing.assert_close(getattr(head, name), getattr(expected, name))
    np.savez(tmp_path / "smpl_mean_params.npz", **(arrays | {"pose": np.zeros(72)}))
    with pytest.raises(InputError, match=r"pose: shape \(72,\).*144"):
        load("hmr2", tmp_path)
    with pytest.raises(InputError, match=r"no such file: elsewhere\.npz"):
        load("hmr2", tmp_path, mean_params="elsewhere.npz")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("MODEL.IMAGE_SIZE", 224, "224"),
        ("MODEL.BACKBONE.TYPE", "resnet", "'resnet'"),
        ("MODEL.SMPL_HEAD.IEF_ITERS", 3, "3"),
        ("MODEL.SMPL_HEAD.JOINT_REP", "aa", "'aa'"),
        ("MODEL.SMPL_HEAD.TRANSFORMER_DECODER.depth", "six", "'six'"),
        ("MODEL.SMPL_HEAD.TRANSFORMER_DECODER.context_dim", 1280, "1280"),
        ("MODEL.SMPL_HEAD.TOKENIZER.TOKEN_NUM", 80, "80"),
        ("SMPL.NUM_BODY_JOINTS", 21, "21"),
        ("EXTRA.FOCAL_LENGTH", 1000, "1000"),
        ("MODEL.SMPL_HEAD.TYPE", None, "None"),
        ("MODEL.SMPL_HEAD.TYPE", "${nowhere}", "cannot be read"),
    ],
)
def test_other_networks_are_refused_by_the_setting(
    key: str, value: object, found: str, tmp_path: Path
) -> None:
    path, config = tmp_path / "model_config.yaml", OmegaConf.create(model_config("tokenhmr"))
    OmegaConf.update(config, key, value)
    OmegaConf.save(config, path)
    with pytest.raises(InputError) as caught:
        read_model_config(path, True, BACKBONE)
    assert caught.value.field == key
    assert caught.value.found.startswith(found)


def test_defaults_of_the_official_code_may_be_left_out_and_nothing_else(tmp_path: Path) -> None:
    path, config = tmp_path / "model_config.yaml", model_config("hmr2")
    del config["EXTRA"], config["MODEL"]["SMPL_HEAD"]["TRANSFORMER_DECODER"]["norm"]
    OmegaConf.save(OmegaConf.create(config), path)
    assert read_model_config(path, False, BACKBONE) == DECODER
    OmegaConf.update(config := OmegaConf.create(config), "MODEL.SMPL_HEAD.TRANSFORMER_DECODER.dim", 96)
    OmegaConf.save(config, path)
    assert read_model_config(path, False, BACKBONE).width == 96
    for broken, match in (
        ("MODEL: [", "not YAML"), ("words", "not"), ("{}", "SMPL_HEAD.TYPE: None"), ("- 1", "not a mapping"),
    ):  # fmt: skip
        path.write_text(broken)
        with pytest.raises(InputError, match=match):
            read_model_config(path, False, BACKBONE)
    path.unlink()
    with pytest.raises(InputError, match="not found"):
        read_model_config(path, False, BACKBONE)


def test_files_that_are_not_there_are_named_with_their_page(tmp_path: Path) -> None:
    release = REGRESSORS["tokenhmr"]
    with pytest.raises(
        InputError, match=r"tokenhmr_model_latest.ckpt: not found in .*is.tue.mpg.de.*checkpoint="
    ):
        find_files(release, RegressorFiles(folder=str(tmp_path)))
    path = write_files(tmp_path / "a" / "b", "tokenhmr")
    for name in ("model_config.yaml", "tokenizer.pth"):
        (path.parent / name).rename(tmp_path / "elsewhere")
        with pytest.raises(InputError, match=f"{name}: not found in"):
            find_files(release, RegressorFiles(folder=str(path.parent)))
        (tmp_path / "elsewhere").rename(path.parent / name)
    with pytest.raises(InputError, match=r"no such file: no.ckpt"):
        load("tokenhmr", tmp_path, checkpoint="no.ckpt", config=str(path.parent / "model_config.yaml"))
    write_files(tmp_path / "second", "tokenhmr")
    with pytest.raises(InputError, match=r"several: .*checkpoint=FILE"):
        find_files(release, RegressorFiles(folder=str(tmp_path)))


def test_of_several_files_the_one_beside_the_checkpoint_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both downloads bring a smpl_mean_params.npz."""
    for name in NAMES:
        write_files(tmp_path / name / "checkpoints", name)
        np.savez(tmp_path / name / "smpl_mean_params.npz", pose=np.zeros(144))
    for name in NAMES:
        found = find_files(REGRESSORS[name], RegressorFiles(folder=str(tmp_path)))
        assert found.mean_params == tmp_path / name / "smpl_mean_params.npz"
    # A checkpoint of another place says nothing of them, however the folder is written.
    moved = write_files(tmp_path.parent / "elsewhere", "hmr2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"several: .*mean_params=FILE"):
        find_files(REGRESSORS["hmr2"], RegressorFiles(folder=".", checkpoint=str(moved)))
    with pytest.raises(InputError, match=r"several: .*mean_params=FILE"):
        find_files(REGRESSORS["hmr2"], RegressorFiles(folder=str(tmp_path), checkpoint=str(moved)))


def test_a_configuration_one_folder_up_is_found(tmp_path: Path) -> None:
    """4D-Humans: .../0/model_config.yaml and .../0/checkpoints/epoch=35-step=1000000.ckpt."""
    path = write_files(tmp_path / "0" / "checkpoints", "hmr2")
    (path.parent / "model_config.yaml").rename(tmp_path / "0" / "model_config.yaml")
    found = find_files(REGRESSORS["hmr2"], RegressorFiles(folder=str(tmp_path)))
    assert found.config == tmp_path / "0" / "model_config.yaml"
    assert found.tokenizer is None


def test_precisions_follow_the_device() -> None:
    cuda = torch.device("cuda")
    assert choose_precision("auto", CPU) == choose_precision("float32", cuda) == torch.float32
    assert choose_precision("auto", cuda) == torch.float16
    assert choose_precision("bfloat16", cuda) == torch.bfloat16
    with pytest.raises(InputError, match="On a CPU"):
        choose_precision("float16", CPU)
    with pytest.raises(InputError, match="Use auto, float32"):
        choose_precision("double", cuda)


def test_norms_and_the_head_stay_float32() -> None:
    placed = place(network("hmr2"), CPU, torch.float16)
    assert placed.backbone.blocks[0].attn.qkv.weight.dtype == torch.float16
    assert placed.backbone.blocks[0].norm1.weight.dtype == placed.backbone.pos_embed.dtype == torch.float32
    assert {p.dtype for p in placed.smpl_head.parameters()} == {torch.float32}
