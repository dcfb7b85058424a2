"""``depthfit tokenizer``: from motion files to weights that a fit can load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from depthfit import so3
from depthfit.cli.main import main
from depthfit.data.random_poses import sample_poses
from depthfit.tokens.load import load_tokenizer, tokenizer_metadata

TINY = ["width=8", "batch=8", "steps=2", "warmup=1", "log_every=1", "frames=8", "random=8"]


@pytest.fixture
def amass(tmp_path: Path) -> Path:
    """Two clips of random poses as AMASS keeps them, z up."""
    folder = tmp_path / "amass"
    folder.mkdir()
    body = so3.log(sample_poses(24, torch.Generator().manual_seed(0))).reshape(24, 63).numpy()
    for name, poses in (("seen", body[:16]), ("unseen", body[16:])):
        upright = np.tile([np.pi / 2, 0, 0], (len(poses), 1))
        hands = np.zeros((len(poses), 90))
        np.savez(
            folder / f"{name}_poses.npz",
            poses=np.concatenate([upright, poses, hands], 1),
            trans=np.tile([0, 0, 1.0], (len(poses), 1)),
            betas=np.zeros(16),
            mocap_framerate=60.0,
            gender="neutral",
        )
    return folder


def test_prepare_train_and_eval_follow_on_each_other(
    amass: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mocap, out = tmp_path / "mocap.npz", tmp_path / "run"
    assert (
        main(["tokenizer", "prepare", f"folders=[{amass}]", f"output={mocap}", "held_out=[unseen_poses]"])
        == 0
    )
    assert "of 2 clips" in capsys.readouterr().out
    train = ["tokenizer", "train", f"mocap={mocap}", f"output={out}", *TINY]
    assert main([*train, "max_minutes=0"]) == 0
    assert "stopped at step 1 of 2" in capsys.readouterr().out
    assert not (out / "tokenizer.safetensors").exists()
    assert main(train) == 0
    capsys.readouterr()
    weights = out / "tokenizer.safetensors"
    assert load_tokenizer(weights).width == 8
    metadata = tokenizer_metadata(weights)
    assert json.loads(metadata["clips"]) == ["seen_poses"]
    assert json.loads(metadata["held_out"]) == ["unseen_poses"]
    assert json.loads(metadata["config"])["steps"] == 2
    scores = json.loads((out / "scores.json").read_text())
    assert scores["held-out clips"]["poses"] == 8
    again = tmp_path / "again.json"
    evaluate = ["tokenizer", "eval", f"tokenizer={weights}", f"mocap={mocap}", f"output={again}"]
    assert main([*evaluate, "frames=8", "random=8"]) == 0
    assert "| held-out clips (8) | quantised |" in capsys.readouterr().out
    assert json.loads(again.read_text()) == scores


def test_bad_clips_are_reported_and_left_out(
    amass: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(amass / "seen_poses.npz") as data:
        fields = dict(data)
    whole = (amass / "seen_poses.npz").read_bytes()
    poses = fields["poses"].copy()
    poses[3, 5] = np.nan
    bad = tmp_path / "bad"
    bad.mkdir()
    np.savez(bad / "nan_poses.npz", **{**fields, "poses": poses})
    (bad / "half_poses.npz").write_bytes(whole[: len(whole) // 2])
    head = "HIERARCHY ROOT hip { OFFSET 0 0 0 CHANNELS 1 Xrotation }"
    (bad / "word.bvh").write_text(f"{head} MOTION Frames: 1 Frame Time: 0.5 many")
    (bad / "offset.bvh").write_text(f"{head.replace('0 0 0', '0 x 0')} MOTION Frames: 1 Frame Time: 0.5 1")
    (bad / "unpack.bvh.gz").write_bytes(b"no gzip")
    names = ("nan_poses.npz", "half_poses.npz", "word.bvh", "offset.bvh", "unpack.bvh.gz")
    prepare = ["tokenizer", "prepare", f"output={tmp_path}/m.npz"]
    assert main([*prepare, f"folders=[{amass},{bad}]", "held_out=[unseen_poses]"]) == 0
    printed = capsys.readouterr()
    assert "24 frames of 2 clips" in printed.out.replace("; 0 implausible", "")
    assert all(f"left out {name}: " in printed.err for name in names)
    assert main([*prepare, f"folders=[{bad}]", "held_out=[]"]) == 1
    told = capsys.readouterr().err
    assert "0 usable clips" in told
    assert all(name in told for name in names)


def test_a_reader_that_has_read_enough_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "depthfit.cli.main", "tokenizer", "--help"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.stderr, done.returncode) == ("", 1)


def test_missing_files_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer", "prepare"]) == 1
    assert "folders=[DIR,...]" in capsys.readouterr().err
    for action in ("train", "eval"):
        assert main(["tokenizer", action, f"mocap={tmp_path}/none.npz"]) == 1
        assert "depthfit tokenizer prepare" in capsys.readouterr().err
    assert main(["tokenizer", "train", "precision=float8"]) == 1
    assert "float32 or bfloat16" in capsys.readouterr().err
