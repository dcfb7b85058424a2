"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from depthfit.cli.main import COMMANDS, main
from depthfit.errors import InputError
from depthfit.run import RunConfig, load_config

ROOT = Path(__file__).parent.parent.parent


def leaves(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


@pytest.mark.parametrize(
    ("argument", "named", "nearest"),
    [
        ("nonsense=1", "nonsense", None),
        ("sede=1", "sede", "seed"),
        ("depth.sampels=10", "depth.sampels", "depth.samples"),
        ("output.vertex=true", "output.vertex", "output.vertices"),
        ("samples=9", "samples", "depth.samples"),
        ("prior_rms=9", "prior_rms", None),
        ("source=depth", "source", "contour.source or camera.source"),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest(argument: str, named: str, nearest: str | None) -> None:
    with pytest.raises(InputError, match="unknown key") as caught:
        load_config([argument])
    assert caught.value.field == named
    assert "Did you mean" in caught.value.fix
    if nearest is not None:
        assert f"Did you mean {nearest}?" in caught.value.fix


def test_a_setting_of_a_stage_is_told_with_its_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tmp_path), str(tmp_path / "out"), "keypoints.source=FILE"]) == 1
    assert "Did you mean prepare.keypoints.source?" in capsys.readouterr().err


def test_arguments_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("seed: 5\ndepth:\n  samples: 77\noutput:\n  dir: from_file\n")
    # The order on the command line between file and settings does not matter.
    config = load_config(["output.dir=from_argument", str(path), "seed=6", "seed=7"])
    assert (config.seed, config.depth.samples, config.output.dir) == (7, 77, "from_argument")
    assert config.depth.pixel_sigma == RunConfig().depth.pixel_sigma
    assert isinstance(config, RunConfig)


@pytest.mark.parametrize(
    ("argument", "named"),
    [("seed=many", "seed"), ("depth.use=perhaps", "depth.use"), ("depth.samples=1.5", "depth.samples")],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(argument: str, named: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config([argument])
    assert caught.value.field == named


def test_groups_and_values_are_not_mixed_up() -> None:
    with pytest.raises(InputError, match=r"seed: a group"):
        load_config(["seed.of=1"])
    with pytest.raises(InputError, match=r"depth: one value, 1. .* depth\.samples"):
        load_config(["depth=1"])


@pytest.mark.parametrize(("text", "reason"), [("- 1\n", "mapping"), ("a: [1\n", "not YAML")])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        load_config([str(path)])
    assert caught.value.source == str(path)
    with pytest.raises(InputError, match="no such file"):
        load_config([str(tmp_path / "b.yaml")])


def test_help_lists_every_setting_with_its_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, value in leaves(RunConfig()):
        line = next((line for line in lines if line.startswith(f"  {name}=")), None)
        assert line is not None, name
        # Two settings that belong together may be explained in one place.
        following, leaf = lines[lines.index(line) + 1], name.split(".")[-1]
        meanings = [other for other in lines if other.startswith("      ")]
        assert following in meanings or any(leaf in meaning for meaning in meanings), f"{name}: no meaning"
        # What is printed can be given back.
        again = load_config([line.strip()])
        assert dict(leaves(again))[name] == value


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: depthfit {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["fits"], ["body", "fly"], ["bench", "size"], ["tokenizer", "sing"]])
def test_a_wrong_call_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert arguments[-1] in capsys.readouterr().err


def test_run_fit_fails_on_an_unknown_setting() -> None:
    command = [sys.executable, str(ROOT / "run_fit.py"), "nonsense=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "nonsense: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_load_and_hold_differences_only(path: Path) -> None:
    from omegaconf import OmegaConf

    config, default = dict(leaves(load_config([str(path)]))), dict(leaves(RunConfig()))
    given: list[str] = []

    def walk(node: dict, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                given.append(f"{prefix}{key}")

    walk(OmegaConf.to_container(OmegaConf.load(path)), "")
    assert given
    assert [name for name in given if config[name] == default[name]] == []
    assert path.read_text().startswith("#"), "says what it is for"


def test_configurations_are_shipped() -> None:
    assert list((ROOT / "configs").glob("*.yaml"))


def test_ctrl_c_is_one_line_and_the_status_of_shells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("depthfit.cli.synth.run", stopped)
    assert main(["synth", "OUT"]) == 130
    assert capsys.readouterr().err == "depthfit synth: stopped\n"


def test_help_of_one_measurement_lists_its_settings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "accuracy", "--help"]) == 0
    one = capsys.readouterr().out
    assert main(["bench", "--help"]) == 0
    every = capsys.readouterr().out
    assert "\naccuracy:\n" in one
    assert "\nspeed:\n" not in one
    assert "\naccuracy:\n" in every
    assert "\nspeed:\n" in every
