"""Training: batches, augmentation, the codebook's learning, and an exact resume."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from depthfit import so3
from depthfit.body.load import load_body
from depthfit.data.random_poses import sample_poses
from depthfit.errors import InputError
from depthfit.joints import SMPL_MIRROR
from depthfit.tokens import checkpoint
from depthfit.tokens.dataset import Mixture, PoseBatches, add_input_noise, load_mocap, mirror, part_masks
from depthfit.tokens.losses import LossWeights, pose_body, sample_body
from depthfit.tokens.quantizer import Quantizer, perplexity
from depthfit.tokens.train import TokenizerTrainConfig, Trainer, train_tokenizer


@pytest.fixture
def mocap(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    rotvec = so3.log(sample_poses(60, generator)).numpy().astype(np.float16)
    path = tmp_path / "mocap.npz"
    np.savez(
        path,
        rotvec=rotvec,
        root=np.zeros((60, 3), np.float16),
        clip=np.repeat([0, 1], 30),
        frame=np.arange(60),
        names=np.array(["seen", "unseen"]),
        held_out=np.array([False, True]),
    )
    return path


def config(mocap: Path, output: Path, **changes: object) -> TokenizerTrainConfig:
    # A width and batch that are quick, and noise from the first step on.
    base = TokenizerTrainConfig(str(mocap), str(output), width=8, batch=16, steps=6, warmup=2, log_every=2)
    return dataclasses.replace(base, **{"mixture": Mixture(noise_every=2), **changes})


def test_training_equals_training_with_a_stop_between(mocap: Path, tmp_path: Path) -> None:
    through = train_tokenizer(config(mocap, tmp_path / "a"), report=lambda _: None)
    assert through.finished
    # The time limit ends a run after its first step; resuming takes the others one by one.
    for _ in range(6):
        stopped = train_tokenizer(config(mocap, tmp_path / "b", max_minutes=0.0), report=lambda _: None)
    assert stopped.step == through.step == 6
    trainers = [Trainer(config(mocap, tmp_path / name)) for name in ("a", "b")]
    assert all(trainer.resume() for trainer in trainers)
    a, b = trainers
    for name, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[name]), name
    assert torch.equal(a.model.quantizer.code_sum, b.model.quantizer.code_sum)
    assert torch.equal(a.model.quantizer.code_count, b.model.quantizer.code_count)


class Killed(BaseException):
    """What ends a run at a chosen write."""


def kill_at(write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise in place of a save's so many-th write, or before its so many-th file takes its name."""
    done = 0
    for module, name in ((checkpoint, "save_file"), (os, "replace")):
        work = getattr(module, name)

        def counted(*args: object, work: Callable[..., object] = work) -> None:
            nonlocal done
            done += 1
            if done == write:
                raise Killed
            work(*args)

        monkeypatch.setattr(module, name, counted)


def test_a_kill_during_a_save_leaves_the_checkpoint_before(
    mocap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 2**21)
    settings = config(mocap, tmp_path / "a")
    trainer = Trainer(settings)
    trainer.take_step()
    trainer.save()
    first = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    shards = len(list((tmp_path / "a").glob("*.safetensors")))
    assert shards > 2
    trainer.take_step()
    # As a save that was killed from outside leaves it.
    (tmp_path / "a" / ".training-00000002-00.0123.safetensors").write_bytes(b"half")
    kills = 0
    while True:
        with monkeypatch.context() as patch:
            kill_at(kills + 1, patch)
            try:
                trainer.save()
                break
            except Killed:
                kills += 1
        resumed = Trainer(settings)
        assert resumed.resume()
        assert resumed.step == 1
        assert all(torch.equal(first[k], v) for k, v in resumed.model.state_dict().items()), kills
    assert kills == 2 * shards + 1
    resumed = Trainer(settings)
    assert resumed.resume()
    assert resumed.step == 2
    assert all(torch.equal(trainer.model.state_dict()[k], v) for k, v in resumed.model.state_dict().items())
    # Nothing is left of the first, nor of the saves that were killed.
    assert len(list((tmp_path / "a").iterdir())) == shards + 1


@pytest.mark.parametrize(
    "change",
    [
        {"width": 4}, {"batch": 8}, {"seed": 5}, {"learning_rate": 1.0}, {"steps": 7},
        {"precision": "bfloat16"}, {"loss": LossWeights(mesh=3.0)},
        {"mixture": Mixture(jitter=0.5, noise_every=2)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_resume_refuses_other_settings_by_name(
    mocap: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    train_tokenizer(config(mocap, tmp_path / "a", max_minutes=0.0), report=lambda _: None)
    name = {"loss": "loss.mesh", "mixture": "mixture.jitter"}.get(key := next(iter(change)), key)
    with pytest.raises(InputError, match=rf"{name} was .* and is ") as caught:
        train_tokenizer(config(mocap, tmp_path / "a", **change), report=lambda _: None)
    assert caught.value.field == name


def test_resume_takes_the_same_motion_at_another_place_and_refuses_other_motion(
    mocap: Path, tmp_path: Path
) -> None:
    train_tokenizer(config(mocap, tmp_path / "a", max_minutes=0.0), report=lambda _: None)
    moved = mocap.rename(tmp_path / "moved.npz")
    elsewhere = config(moved, tmp_path / "a", max_minutes=0.0, save_every=1, log_every=1)
    assert train_tokenizer(elsewhere, report=lambda _: None).step == 2
    with np.load(moved) as data:
        fields = dict(data)
    np.savez(moved, **{**fields, "rotvec": fields["rotvec"][::-1]})
    with pytest.raises(InputError, match="mocap was"):
        train_tokenizer(config(moved, tmp_path / "a"), report=lambda _: None)


@pytest.mark.parametrize("pattern", ["*.safetensors", "training.json"])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b""])
def test_a_damaged_checkpoint_is_named(
    mocap: Path, tmp_path: Path, pattern: str, damage: Callable[[bytes], bytes]
) -> None:
    settings = config(mocap, tmp_path / "a", max_minutes=0.0)
    train_tokenizer(settings, report=lambda _: None)
    (path,) = (tmp_path / "a").glob(pattern)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{path.name}: file: .*another folder"):
        train_tokenizer(settings, report=lambda _: None)
    if pattern == "*.safetensors":
        path.unlink()
        with pytest.raises(InputError, match=f"{path.name}: file: not found"):
            train_tokenizer(settings, report=lambda _: None)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"files": ["../training-00000001-00.safetensors"]}, "files"), ({"files": 3}, "files: 3"),
        ({"step": "1"}, "step: '1'"), ({"codes_initialised": None}, "codes_initialised: None"),
        ([], "a list"), ({"files": []}, "tensors: missing"),
    ],
)  # fmt: skip
def test_a_record_of_other_content_is_refused(
    mocap: Path, tmp_path: Path, change: dict[str, object] | list, match: str
) -> None:
    settings = config(mocap, tmp_path / "a", max_minutes=0.0)
    train_tokenizer(settings, report=lambda _: None)
    path = tmp_path / "a" / "training.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **change} if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=match):
        train_tokenizer(settings, report=lambda _: None)


def test_learning_rate_warms_up_and_falls_to_zero(mocap: Path, tmp_path: Path) -> None:
    trainer = Trainer(config(mocap, tmp_path, steps=100, warmup=10))
    rates = [trainer.learning_rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 * trainer.config.learning_rate)
    assert int(np.argmax(rates)) == 9
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_held_out_clips_are_kept_apart(mocap: Path) -> None:
    seen, names = load_mocap(mocap, held_out=False)
    unseen, others = load_mocap(mocap, held_out=True)
    assert (names, others, len(seen), len(unseen)) == (["seen"], ["unseen"], 30, 30)


def test_noise_changes_the_input_of_one_part_only() -> None:
    mixture = Mixture(noise_share=1.0, noise_levels=(0.1, 0.5), noise_every=10)
    clean = so3.to_6d(sample_poses(200, torch.Generator().manual_seed(1)))
    before = clean.clone()
    for step, greatest in ((0, 0.1), (10, 0.5), (99, 0.5)):
        given = add_input_noise(clean, step, mixture, part_masks(), torch.Generator().manual_seed(step))
        change = given - clean
        assert torch.equal(clean, before)
        assert (change.flatten(1).abs().amax(1) > 0).all()
        assert 0.8 * greatest < change.max() <= greatest
        changed = change.abs().amax(-1) > 0
        assert all(any(torch.equal(row, mask) for mask in part_masks()) for row in changed)
        # One number for all entries of the part.
        assert (change.amax(-1) - change.amin(-1)).abs().max() < 1e-6


def test_batches_depend_on_seed_and_step_alone(mocap: Path) -> None:
    poses, _ = load_mocap(mocap, held_out=False)
    one, other = (PoseBatches(poses, Mixture(), 16, seed=5) for _ in range(2))
    one.at(0)
    for a, b in zip(one.at(3), other.at(3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.at(3)[0], one.at(4)[0])
    assert not torch.equal(one.at(3)[0], PoseBatches(poses, Mixture(), 16, seed=6).at(3)[0])


def test_mirror_reflects_the_body() -> None:
    poses = sample_poses(5, torch.Generator().manual_seed(2))
    body = load_body("open")
    joints, _ = pose_body(body, poses)
    reflected, _ = pose_body(body, mirror(poses))
    expected = joints[:, list(SMPL_MIRROR)] * torch.tensor([-1.0, 1.0, 1.0])
    assert (reflected - expected).abs().max() < 2e-3  # the open body is symmetric to a millimetre
    assert torch.equal(mirror(mirror(poses)), poses)


def test_sampled_body_moves_as_the_whole_does() -> None:
    body = load_body("open")
    small = sample_body(body, points=50)
    poses = sample_poses(4, torch.Generator().manual_seed(3))
    joints, mesh = pose_body(body, poses)
    small_joints, small_mesh = pose_body(small, poses)
    assert (joints - small_joints).abs().max() < 1e-4
    assert torch.cdist(small_mesh, mesh).amin(-1).max() < 1e-3


def naive_update(codebook, sums, counts, latents, codes, fresh, decay):
    """The moving averages code by code, in plain Python."""
    sums, counts, out = sums.clone(), counts.clone(), codebook.clone()
    for k in range(len(codebook)):
        members = latents[codes == k]
        sums[k] = decay * sums[k] + (1 - decay) * members.sum(0)
        counts[k] = decay * counts[k] + (1 - decay) * len(members)
        if counts[k] < 1.0:
            sums[k], counts[k] = fresh[k], 1.0
        out[k] = sums[k] / counts[k]
    return out, sums, counts


def test_codebook_update_equals_a_naive_one_and_resets_unused_codes() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(6, 3, decay=0.9).double()
    generator = torch.Generator().manual_seed(1)
    quantizer.initialise(torch.randn(20, 3).double(), generator)
    state = [quantizer.codebook.clone(), quantizer.code_sum.clone(), quantizer.code_count.clone()]
    replaced = 0
    for step in range(8):
        latents = torch.randn(20, 3).double() + step
        codes = quantizer.nearest(latents)
        assert torch.equal(codes, torch.cdist(latents, quantizer.codebook).argmin(-1))
        generator.manual_seed(step)
        order = torch.randperm(20, generator=generator)
        state = list(naive_update(*state, latents, codes, latents[order[:6]], 0.9))
        generator.manual_seed(step)
        replaced += int(quantizer.update(latents, codes, generator))
        now = (quantizer.codebook, quantizer.code_sum, quantizer.code_count)
        for found, expected in zip(now, state, strict=True):
            assert torch.allclose(found, expected)
    assert replaced > 0


def test_perplexity_of_even_and_single_use() -> None:
    assert perplexity(torch.arange(8).repeat(3), 8) == pytest.approx(8)
    assert perplexity(torch.zeros(5, dtype=torch.long), 8) == pytest.approx(1)
