"""Train the pose tokenizer.

Follows TokenHMR's training with what its script means but does not do: the input noise reaches the input,
the learning rate falls, the codebook keeps learning, and a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.tokens.checkpoint import has_checkpoint, load_checkpoint, read_record, save_checkpoint
from depthfit.tokens.dataset import Mixture, PoseBatches, load_mocap
from depthfit.tokens.layers import before_compiling
from depthfit.tokens.losses import LossWeights, PoseLoss, sample_body
from depthfit.tokens.quantizer import perplexity
from depthfit.tokens.vqvae import NUM_CODES, Tokenizer

GREATEST_GRADIENT = 1.0
"""Norm to which the gradient is clipped: without normalisation layers single batches can kick."""
NOT_LEARNED_FROM = ("output", "device", "compile", "max_minutes", "log_every", "save_every")
"""Settings that a run may go on with changed: they change where, when and how fast, not what is learned."""


@dataclass
class TokenizerTrainConfig:
    """Settings of a training run.

    Attributes:
        mocap: File of ``depthfit tokenizer prepare``.
        output: Folder of checkpoint, log and the final weights.
        width: Channels of all hidden layers.
        steps: Length of the run; the learning rate falls to zero over it.
        batch: Poses a step.
        learning_rate: After the warm-up.
        warmup: Steps over which the learning rate rises.
        weight_decay: AdamW's.
        unquantised_share: Share of poses decoded from their latents instead of their codes.
        seed: Of weights and batches.
        device: Such as ``cpu`` or ``cuda``.
        precision: ``float32``, or ``bfloat16`` for the convolutions.
        compile: Whether to compile the step.
        max_minutes: Stop in good order after so long; run again to go on.
        log_every, save_every: In steps.
        mixture, loss: What batches are made of, and what is minimised.
    """

    mocap: str = "output/mocap.npz"
    output: str = "output/tokenizer"
    width: int = 256
    steps: int = 40000
    batch: int = 512
    learning_rate: float = 4e-4
    warmup: int = 500
    weight_decay: float = 1e-5
    unquantised_share: float = 0.25
    seed: int = 123
    device: str = "cpu"
    precision: str = "float32"
    compile: bool = False
    max_minutes: float = math.inf
    log_every: int = 500
    save_every: int = 5000
    mixture: Mixture = field(default_factory=Mixture)
    loss: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise InputError(
                "tokenizer config", "precision", repr(self.precision), "Use float32 or bfloat16."
            )


@dataclass(frozen=True)
class TrainResult:
    """Where a run stands: ``finished`` is false if ``max_minutes`` ended it.

    Attributes:
        model: In training mode; clips: Names of the clips it learned from.
        step, finished, steps_per_second: How far it came, and how fast.
    """

    model: Tokenizer
    clips: list[str]
    step: int
    finished: bool
    steps_per_second: float


def initialise_weights(model: Tokenizer) -> None:
    """Weights that keep the size of activations through the layers; the first output is the rest pose.

    PyTorch's default for convolutions shrinks them at each layer: through 16 layers without normalisation
    hardly anything of the pose reaches the codes at first. Source: He et al., "Delving Deep into
    Rectifiers" (ICCV 2015); residual branches start small as in Zhang et al., "Fixup" (ICLR 2019).
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv1d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            torch.nn.init.zeros_(module.bias)
            if name.endswith(("conv2", "decoder.15")):
                module.weight.data.mul_(0.1)
    last = model.decoder.convolution("15")
    assert last.bias is not None
    last.bias.data.copy_(torch.eye(3)[:2].flatten())


class Trainer:
    """A model with its optimiser, data and loss; ``run`` takes steps."""

    def __init__(self, config: TokenizerTrainConfig) -> None:
        self.config = config
        device = torch.device(config.device)
        torch.manual_seed(config.seed)
        torch.set_float32_matmul_precision("high")
        self.model = Tokenizer(config.width)
        initialise_weights(self.model)
        self.model.to(device).train()
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=device.type == "cuda",
        )
        mocap, self.clips = load_mocap(config.mocap, held_out=False)
        self.batches = PoseBatches(mocap.to(device), config.mixture, config.batch, config.seed)
        body = sample_body(load_body("open")).to(device)
        self.loss = PoseLoss(body, config.loss)
        self.generator = torch.Generator(device=device)
        self.step = 0
        self._compiled: Callable[..., Any] = self._forward
        if config.compile:
            before_compiling()
            self._compiled = torch.compile(self._forward)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero at the last step."""
        config = self.config
        warm = min(1.0, (step + 1) / config.warmup)
        return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.steps))

    def take_step(self) -> dict[str, Tensor]:
        """One update; returns the terms of the loss and the use of the codebook."""
        target, given = self.batches.at(self.step)
        self.generator.manual_seed((self.config.seed * 3) * 100_000_007 + self.step)
        quantizer = self.model.quantizer
        if not quantizer.initialised:
            with torch.no_grad():
                quantizer.initialise(self.model.encode(given).flatten(0, 1), self.generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        share = torch.rand(len(given), generator=self.generator, device=given.device)
        total, terms, latents, codes = self._compiled(given, target, share < self.config.unquantised_share)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), GREATEST_GRADIENT)
        self.optimizer.step()
        # The loss above used the codebook as it was before this batch.
        replaced = quantizer.update(latents.detach().flatten(0, 1), codes.flatten(), self.generator)
        self.step += 1
        terms = {name: value.detach() for name, value in terms.items()}
        return {**terms, "total": total.detach(), "gradient": norm, "replaced": replaced, "codes": codes}

    def _forward(
        self, given: Tensor, target: Tensor, keep_latents: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        enabled = self.config.precision == "bfloat16"
        with torch.autocast(given.device.type, dtype=torch.bfloat16, enabled=enabled):
            output = self.model(given, keep_latents)
        total, terms = self.loss(output, target)
        return total, terms, output.latents, output.codes

    def save(self) -> None:
        """Write the checkpoint to the output folder."""
        record = {"step": self.step, "config": self._learned_from()}
        save_checkpoint(self.config.output, self.model, self.optimizer, record)

    def resume(self) -> bool:
        """Continue from the output folder's checkpoint; false if there is none.

        Raises:
            InputError: The checkpoint cannot be read, or was made with other settings or other motion.
        """
        folder = self.config.output
        if not has_checkpoint(folder):
            return False
        record = read_record(folder)
        before, now = record.get("config"), self._learned_from()
        if before != now:
            before = before if isinstance(before, dict) else {}
            differs = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
            found = "; ".join(f"{k} was {before.get(k)!r} and is {now.get(k)!r}" for k in differs)
            fix = "Go on with the settings that it was begun with, or give another output"
            raise InputError(folder, ", ".join(differs), f"begun with other settings: {found}", fix)
        load_checkpoint(folder, self.model, self.optimizer)
        self.step = record["step"]
        return True

    def _learned_from(self) -> dict[str, Any]:
        """Settings that decide what is learned, by dotted name; of the motion, its file's check sum."""
        names = {field.name for field in dataclasses.fields(TokenizerTrainConfig)} - set(NOT_LEARNED_FROM)
        values = {key: value for key, value in dataclasses.asdict(self.config).items() if key in names}
        values["mocap"] = hashlib.sha256(Path(self.config.mocap).read_bytes()).hexdigest()[:16]
        leaves: dict[str, Any] = {}
        for key, value in values.items():
            leaves |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        # JSON has lists alone, and what was saved is compared with what is asked for.
        as_saved: dict[str, Any] = json.loads(json.dumps(leaves))
        return as_saved

    def run(self) -> Iterator[dict[str, float]]:
        """Take steps up to the end or the time limit; yields a log row every ``log_every`` steps."""
        config, started, first = self.config, time.monotonic(), self.step
        while self.step < config.steps:
            row = self.take_step()
            last = self.step == config.steps
            if self.step % config.log_every == 0 or last:
                yield self._log_row(row, (self.step - first) / (time.monotonic() - started))
            if self.step % config.save_every == 0 or last:
                self.save()
            if time.monotonic() - started > 60 * config.max_minutes:
                break

    def _log_row(self, row: dict[str, Tensor], speed: float) -> dict[str, float]:
        codes = row.pop("codes")
        log = {"step": float(self.step), **{name: float(value) for name, value in row.items()}}
        return log | {
            "perplexity": float(perplexity(codes, NUM_CODES)),
            "learning_rate": self.learning_rate(self.step),
            "steps_per_second": speed,
        }


def train_tokenizer(config: TokenizerTrainConfig, report: Callable[[str], None] = print) -> TrainResult:
    """Train, resuming from ``config.output`` if it holds a checkpoint; appends to ``log.jsonl`` there.

    Ends with a checkpoint, also when ``max_minutes`` is over.

    Raises:
        InputError: The motion file or the checkpoint cannot be used.
    """
    trainer = Trainer(config)
    resumed = trainer.resume()
    report(f"width {config.width}: {'resumed' if resumed else 'started'} at step {trainer.step}")
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    speed = 0.0
    with (folder / "log.jsonl").open("a") as log:
        for row in trainer.run():
            speed = row["steps_per_second"]
            log.write(json.dumps(row) + "\n")
            log.flush()
            report(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
    trainer.save()
    return TrainResult(trainer.model, trainer.clips, trainer.step, trainer.step >= config.steps, speed)
