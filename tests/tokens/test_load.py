"""Files: depthfit's own, and TokenHMR's pickle, strictly and without running its code."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
import torch

from depthfit.errors import InputError
from depthfit.tokens.load import load_tokenizer, save_tokenizer, tokenizer_metadata
from depthfit.tokens.vqvae import Tokenizer

ARCH = {
    "CODE_DIM": 256, "NB_CODE": 2048, "DOWN_T": 1, "WIDTH": 8, "DEPTH": 2, "DILATION_RATE": 3,
    "TOKEN_SIZE_MUL": 4, "TOKEN_SIZE_DIV": 4, "ROT_TYPE": "rot6d", "QUANTIZER": "ema_reset",
}  # fmt: skip


@pytest.fixture
def yacs(monkeypatch: pytest.MonkeyPatch) -> type[dict]:
    """yacs' node as the machine that wrote the file had it: a dictionary with instance attributes.

    ``write_official`` takes the module away again, since a reader need not have it.
    """

    def __init__(self: dict, content: dict) -> None:
        dict.__init__(self, {k: node(v) if isinstance(v, dict) else v for k, v in content.items()})
        self.__dict__["__immutable__"] = False

    node = type("CfgNode", (dict,), {"__init__": __init__, "__module__": "yacs.config"})
    module = types.ModuleType("yacs.config")
    module.CfgNode = node
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return node


def write_official(path: Path, yacs: type[dict], net: dict, arch: dict | None = None) -> Path:
    torch.save({"net": net, "hparams": yacs({"ARCH": arch or ARCH, "EXP": {"NAME": "x"}})}, path)
    del sys.modules["yacs.config"], sys.modules["yacs"]
    return path


@pytest.fixture
def network() -> Tokenizer:
    torch.manual_seed(0)
    model = Tokenizer(8)
    model.codebook.normal_()
    return model


def test_official_file_loads_strictly_and_ignores_its_body_model(
    tmp_path: Path, yacs: type[dict], network: Tokenizer
) -> None:
    net = {**network.state_dict(), "decoder.body_model.weights": torch.zeros(3)}
    loaded = load_tokenizer(write_official(tmp_path / "tokenizer.pth", yacs, net))
    assert loaded.width == 8
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_any_difference_of_weights_is_an_error(
    tmp_path: Path, yacs: type[dict], network: Tokenizer, change: str
) -> None:
    net, key = dict(network.state_dict()), "decoder.decoder.15.bias"
    if change == "missing":
        del net[key]
    elif change == "extra":
        net["decoder.decoder.16.bias"] = torch.zeros(6)
    else:
        net[key] = torch.zeros(7)
    path = write_official(tmp_path / "tokenizer.pth", yacs, net)
    named = {"missing": "missing .*15.bias", "extra": "unexpected .*16.bias", "shape": r"15.bias \(7,\)"}
    with pytest.raises(InputError, match=named[change]):
        load_tokenizer(path)


@pytest.mark.parametrize(("key", "value"), [("NB_CODE", 1024), ("DOWN_T", 2), ("ROT_TYPE", "axis_angle")])
def test_other_settings_are_refused(
    tmp_path: Path, yacs: type[dict], network: Tokenizer, key: str, value: object
) -> None:
    path = write_official(tmp_path / "t.pth", yacs, network.state_dict(), {**ARCH, key: value})
    with pytest.raises(InputError, match=key):
        load_tokenizer(path)


class Hostile:
    """Makes a folder when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.target,)


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "was_here"
    torch.save({"net": {}, "hparams": Hostile(target)}, tmp_path / "tokenizer.pth")
    with pytest.raises(InputError, match="run code"):
        load_tokenizer(tmp_path / "tokenizer.pth")
    assert not target.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"nothing of the kind")
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"net": {}, "hparams": {"EXP": 1}}, tmp_path / "bare.pth")
    for name, match in [
        ("a.pth", "pickle"), ("a.safetensors", "safetensors"), ("list.pth", "keys"),
        ("bare.pth", "ARCH.WIDTH"), ("none.pth", "not found"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=match):
            load_tokenizer(tmp_path / name)


def test_damaged_contents_are_named(tmp_path: Path, yacs: type[dict], network: Tokenizer) -> None:
    (tmp_path / "short.pth").write_bytes(b"\x80\x02.")
    settings, net = {"ARCH": ARCH}, network.state_dict()
    torch.save({"net": [1, 2], "hparams": settings}, tmp_path / "list.pth")
    key = "decoder.decoder.15.bias"
    torch.save({"net": {**net, key: "text"}, "hparams": settings}, tmp_path / "text.pth")
    nan = torch.full_like(net["quantizer.codebook"], torch.nan)
    torch.save({"net": {**net, "quantizer.codebook": nan}, "hparams": settings}, tmp_path / "nan.pth")
    network.codebook.fill_(torch.nan)
    save_tokenizer(network, tmp_path / "nan.safetensors", {})
    for name, match in [
        ("short.pth", "pickle: not a whole torch file"), ("list.pth", "net: a list"),
        ("text.pth", "15.bias: a str"), ("nan.pth", "codebook: .*not finite"),
        ("nan.safetensors", "codebook: .*not finite"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=match):
            load_tokenizer(tmp_path / name)


def test_own_file_round_trip(tmp_path: Path, network: Tokenizer) -> None:
    path = tmp_path / "mine.safetensors"
    save_tokenizer(network, path, {"held_out": ["a", "b"]})
    loaded = load_tokenizer(path)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float()), key
    assert tokenizer_metadata(path)["held_out"] == '["a", "b"]'
