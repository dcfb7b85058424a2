"""What ``depthfit bench speed`` fits: a few synthetic images, repeated to the size of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from baselines import InitContext, initialiser
from depthfit.bench.scenes import ensure_scene
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.evidence.scene import Scene, read_scene
from depthfit.fit import FitConfig, Fitter, ImageInput
from depthfit.fit.adapter import image_input
from depthfit.fit.fitter import Fitted
from depthfit.fit.stages import Scheduler
from depthfit.synth import SynthConfig
from depthfit.tokens.load import load_tokenizer
from depthfit.tokens.vqvae import OFFICIAL_WIDTH, Tokenizer

MIXED_SIZES = ((1280, 960), (640, 480), (720, 1280))
"""(width, height) px of the images of a mixed batch."""
MIXED_PEOPLE = (1.0, 1.0, 1.0)
"""Relative frequency of images with 1, 2, ... people in a mixed batch."""
FILL_SEED = 0


@dataclass(frozen=True)
class Space:
    """A way to step the pose, as the tables name it.

    Attributes:
        name: What the command line and the tables call it.
        pose: ``pose.space`` of the fit.
        width: Of the tokenizer, or ``None`` for the shipped one.
    """

    name: str
    pose: str
    width: int | None = None


SPACES = {
    space.name: space
    for space in (
        Space("rotations", "rotations"),
        Space("tokens-open", "tokens"),
        Space("tokens-full", "tokens", OFFICIAL_WIDTH),
    )
}


def scene_folders(out: Path, seed: int, images: int, mixed: bool) -> list[tuple[Path, SynthConfig]]:
    """Folders of the scenes with their settings; a scene that is not there yet is made.

    ``mixed`` asks for scenes of a third of ``images`` each, of :data:`MIXED_SIZES` with
    :data:`MIXED_PEOPLE`; otherwise every image is 1280 x 960 with one person.
    """
    if not mixed:
        wanted = [
            (out / f"speed_{seed}_{images}", SynthConfig(seed=seed, images=images, people_weights=(1.0,)))
        ]
    else:
        few = max(1, images // len(MIXED_SIZES))
        common = SynthConfig(seed=seed, images=few, people_weights=MIXED_PEOPLE)
        wanted = [
            (
                out / f"speed_{seed}_{few}_{width}x{height}",
                replace(common, width=width, height=height),
            )
            for width, height in MIXED_SIZES
        ]
    for folder, config in wanted:
        ensure_scene(config, folder)
    return wanted


def read_inputs(
    folders: Iterable[tuple[Path, SynthConfig]], config: FitConfig, seed: int
) -> list[ImageInput]:
    """The fit's inputs for all images of the scenes that have a detected person."""
    context = InitContext(load_body(), load_tokenizer(), config, torch.device("cpu"), seed)
    inputs = []
    for folder, scene_config in folders:
        scene = read_scene(folder, scene_config.keypoint_format)
        inputs += [found for name in scene.names if (found := _input(scene, name, config, context))]
    return inputs


def _input(scene: Scene, name: str, config: FitConfig, context: InitContext) -> ImageInput | None:
    evidence = scene.read(name)
    people = [p for p in initialiser("predictions")(evidence, context) if p.detection is not None]
    return image_input(evidence, people, config) if people else None


def speed_tokenizer(space: Space) -> Tokenizer:
    """The shipped tokenizer, or one of the official shape.

    No released weights can be shipped, so the wide one holds the shipped one's channels and fills the others
    with seeded random weights. None of those reach the shipped channels: the function, and with it the course
    of a fit, stays the same, while every layer has its full size and hardly a quarter of its weights is zero.
    """
    small = load_tokenizer()
    if space.width is None:
        return small
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FILL_SEED)
        wide = Tokenizer(space.width)
    state, inner = wide.state_dict(), small.state_dict()
    for key, value in inner.items():
        state[key] = _embed(value, state[key])
    wide.load_state_dict(state)
    wide.quantizer.initialised = True
    return wide.eval().requires_grad_(False)


def _embed(small: Tensor, wide: Tensor) -> Tensor:
    """``small`` in the leading corner of ``wide``; what would lead from new inputs to old outputs is zero."""
    out = wide.clone()
    if small.ndim == 3:
        out[: small.shape[0], small.shape[1] :] = 0
    out[tuple(slice(0, n) for n in small.shape)] = small
    return out


def repeat(scheduler: Scheduler, images: int, first: int = 0) -> Scheduler:
    """The stages over ``images`` images: those of ``scheduler`` over and over, from ``first`` on."""
    batch = scheduler.batch
    owner = batch.group.cpu()
    pick = torch.arange(first, first + images) % batch.num_images
    own = [torch.nonzero(owner == image)[:, 0] for image in range(batch.num_images)]
    rows = torch.cat([own[int(image)] for image in pick]).to(batch.group.device)
    counts = torch.tensor([len(own[int(image)]) for image in pick])
    group = torch.repeat_interleave(torch.arange(images), counts).to(batch.group.device)
    names = [f.name for f in fields(batch) if f.name not in ("group", "image_prior")]
    people = {name: getattr(batch, name)[rows] for name in names}
    prior = batch.image_prior[pick.to(batch.group.device)]
    repeated = replace(batch, group=group, image_prior=prior, **people)
    return replace(scheduler, batch=repeated, space=scheduler.space[rows])


class RepeatedFitter(Fitter):
    """A fitter whose batch lies ready on the device, and if asked its fit too, so that a fit, what comes
    before it and what comes after can be timed each alone. Both are given whatever the images.

    Attributes:
        ready: What :meth:`solve` fits; done: what it gives instead, if not ``None``.
        parts: What :meth:`solve_parts` fits one after another.
    """

    ready: Scheduler
    done: Fitted | None = None
    parts: Sequence[Scheduler] = ()

    def load(self, once: Scheduler, inputs: Sequence[ImageInput], images: int) -> None:
        """Make ``images`` images ready, those of ``once`` over and over, in the parts in which
        :meth:`Fitter.fit` would take ``inputs`` over and over."""
        many = [inputs[k % len(inputs)] for k in range(images)]
        made, parts, first = dict[tuple[int, int], Scheduler](), [], 0
        for chunk in self._chunks(many):
            # Parts of the same images are one: a fit holds the evidence of one part at a time.
            key = first % len(inputs), len(chunk)
            if key not in made:
                made[key] = repeat(once, len(chunk), first)
            parts.append(made[key])
            first += len(chunk)
        self.parts = parts

    def solve_parts(self) -> Tensor:
        """Fit all parts; (images,) accepted steps."""
        steps = []
        for part in self.parts:
            # A batch of its own, as every other has: what knows the last one must not know this one.
            self.ready = replace(part, batch=replace(part.batch))
            steps.append(self.solve([]).after.steps)
        return torch.cat(steps)

    def scheduler(self, images: list[ImageInput]) -> Scheduler:
        return self.ready

    def solve(self, images: list[ImageInput]) -> Fitted:
        return super().solve(images) if self.done is None else self.done


def speed_fitter(
    inputs: list[ImageInput], space: Space, config: FitConfig, device: torch.device, body: Body
) -> tuple[RepeatedFitter, Scheduler]:
    """A fitter for this space, and the stages over ``inputs`` once."""
    config = replace(config, pose=replace(config.pose, space=space.pose))
    engine = RepeatedFitter(body, speed_tokenizer(space), config, device)
    with torch.no_grad():
        return engine, Fitter.scheduler(engine, inputs)
