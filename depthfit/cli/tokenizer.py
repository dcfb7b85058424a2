"""``depthfit tokenizer``: collect motion, train a pose tokenizer, score one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from depthfit.atomic import atomic_path
from depthfit.body.load import load_body
from depthfit.cli.help import settings, wants_help
from depthfit.data.mocap import HELD_OUT, prepare_mocap
from depthfit.data.pose_mixture import fit_pose_mixture, save_pose_mixtures
from depthfit.errors import InputError
from depthfit.run import load_config
from depthfit.tokens.dataset import load_mocap
from depthfit.tokens.evaluate import score_sets, score_table, write_scores
from depthfit.tokens.load import load_tokenizer, save_tokenizer
from depthfit.tokens.train import TokenizerTrainConfig, TrainResult, train_tokenizer

CREDIT = "Motion data: mocap.cs.cmu.edu; the database was created with funding from NSF EIA-0196217."
WEIGHTS, SCORES = "tokenizer.safetensors", "scores.json"


@dataclass
class PrepareConfig:
    """Settings of ``depthfit tokenizer prepare``.

    Attributes:
        folders: Folders of motion files: AMASS .npz, .bvh, .asf with .amc; the last three also gzipped.
        output: File to write.
        held_out: Clips (file names without extension) that training never sees.
        stride: Keep every so many-th frame.
    """

    folders: list[str] = field(default_factory=list)
    output: str = "output/mocap.npz"
    held_out: list[str] = field(default_factory=lambda: list(HELD_OUT))
    stride: int = 1


@dataclass
class TrainConfig(TokenizerTrainConfig):
    """Settings of ``depthfit tokenizer train``.

    Attributes:
        credit: Whose motion it is; stored in the file of the weights.
        frames: Held-out frames to score at the end, evenly spread.
        random: Random valid poses to score at the end.
    """

    credit: str = CREDIT
    frames: int = 4096
    random: int = 4096


@dataclass
class EvalConfig:
    """Settings of ``depthfit tokenizer eval``.

    Attributes:
        tokenizer: ``open``, a file of ``train``, or TokenHMR's tokenizer.pth.
        mocap: File of ``prepare``.
        frames: Held-out frames to score, evenly spread.
        random: Random valid poses to score.
        output: JSON file to write, or ``null`` to print only.
    """

    tokenizer: str = "open"
    mocap: str = "output/mocap.npz"
    frames: int = 4096
    random: int = 4096
    output: str | None = None


@dataclass
class PriorConfig:
    """Settings of ``depthfit tokenizer prior``.

    Attributes:
        mocap: File of ``prepare``; its training clips are used.
        components: Sizes of the mixtures to fit.
        frames: Frames to fit on, evenly spread; their mirror images are added.
        seed: Of the mixtures' start.
        credit: Whose motion it is; stored in the file.
        output: File to write.
    """

    mocap: str = "output/mocap.npz"
    components: list[int] = field(default_factory=lambda: [1, 8])
    frames: int = 12000
    seed: int = 0
    credit: str = CREDIT
    output: str = "output/pose_mixture.npz"


USAGE = """usage: depthfit tokenizer prepare folders=[DIR,...] [key=value ...]
       depthfit tokenizer train [config.yaml] [key=value ...]
       depthfit tokenizer eval [key=value ...]
       depthfit tokenizer prior [key=value ...]

train writes checkpoints into its output folder and goes on from them when it is run again; once finished it
leaves tokenizer.safetensors and scores.json there. `depthfit fit models.tokenizer=FILE` uses the former.
prior fits the Gaussian mixtures of poses (depthfit/assets/pose_mixture.npz); it needs scikit-learn.
"""


def run(arguments: Sequence[str]) -> int:
    """Prepare, train, evaluate, or fit the mixtures."""
    if wants_help(arguments) or not arguments:
        schemas = {"prepare": PrepareConfig, "train": TrainConfig, "eval": EvalConfig, "prior": PriorConfig}
        print("\n".join([USAGE, *(f"{name}:\n{settings(schema)}\n" for name, schema in schemas.items())]))
        return 0
    actions = {"prepare": _prepare, "train": _train, "eval": _eval, "prior": _prior}
    if arguments[0] not in actions:
        print(f"depthfit tokenizer: no action {arguments[0]!r}.\n{USAGE}", file=sys.stderr)
        return 2
    return actions[arguments[0]](arguments[1:])


def _prepare(arguments: Sequence[str]) -> int:
    config: PrepareConfig = load_config(arguments, PrepareConfig)
    if not config.folders:
        raise InputError("command line", "folders", "not given", "Name them: folders=[DIR,...].")
    with atomic_path(config.output) as temporary:
        summary = prepare_mocap(config.folders, temporary, config.held_out, config.stride)
    for reason in summary.skipped_files:
        print(f"left out {reason}", file=sys.stderr)
    print(f"{config.output}: {summary.frames} frames of {summary.clips} clips", end="")
    print(f"; {summary.dropped_frames} implausible frames dropped")
    return 0


def _train(arguments: Sequence[str]) -> int:
    config: TrainConfig = load_config(arguments, TrainConfig)
    result = train_tokenizer(config)
    if not result.finished:
        print(f"stopped at step {result.step} of {config.steps}; run the same command to go on")
        return 0
    _export(result, config)
    weights = str(Path(config.output) / WEIGHTS)
    scored = EvalConfig(
        weights, config.mocap, config.frames, config.random, str(Path(config.output) / SCORES)
    )
    print(_score(scored))
    print(weights)
    return 0


def _export(result: TrainResult, config: TrainConfig) -> None:
    settings_of_run = {k: v for k, v in asdict(config).items() if k not in ("mocap", "output", "credit")}
    _, held_out = load_mocap(config.mocap, held_out=True)
    metadata = {
        "step": result.step,
        "config": settings_of_run,
        "clips": result.clips,
        "held_out": held_out,
        "credit": config.credit,
    }
    with atomic_path(Path(config.output) / WEIGHTS) as temporary:
        save_tokenizer(result.model, temporary, metadata)


def _eval(arguments: Sequence[str]) -> int:
    print(_score(load_config(arguments, EvalConfig)))
    return 0


def _score(config: EvalConfig) -> str:
    poses, _ = load_mocap(config.mocap, held_out=True)
    if not len(poses):
        raise InputError(config.mocap, "held_out", "no held-out clip", "Name some in `prepare`.")
    chosen = torch.linspace(0, len(poses) - 1, min(config.frames, len(poses))).round().long()
    scores = score_sets(load_tokenizer(config.tokenizer), load_body(), poses[chosen], config.random)
    if config.output is not None:
        with atomic_path(config.output) as temporary:
            write_scores(scores, temporary)
    return score_table(scores)


def _prior(arguments: Sequence[str]) -> int:
    config: PriorConfig = load_config(arguments, PriorConfig)
    poses, clips = load_mocap(config.mocap, held_out=False)
    chosen = torch.linspace(0, len(poses) - 1, min(config.frames, len(poses))).round().long()
    mixtures = {n: fit_pose_mixture(poses[chosen], n, config.seed) for n in config.components}
    made_by = {k: v for k, v in asdict(config).items() if k not in ("mocap", "output")}
    with atomic_path(config.output) as temporary:
        save_pose_mixtures(mixtures, temporary, {**made_by, "clips": clips})
    print(f"{config.output}: mixtures of {config.components} on {len(chosen)} frames of {len(clips)} clips")
    return 0
