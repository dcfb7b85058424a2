"""``depthfit bench numerics``: fits in single precision, on any device, against double precision on the CPU.

Two comparisons. With associations held, both minimise one smooth function, and rounding is all that tells
them apart. A whole search finds its own associations, round by round: one pixel or rim vertex that rounding
decides otherwise is another function, and what the evidence hardly fixes, distance and focal, moves most.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from depthfit.atomic import atomic_path
from depthfit.bench.accuracy import bench_scene
from depthfit.bench.scenes import ensure_scene
from depthfit.bench.speed_scenes import read_inputs
from depthfit.body.load import load_body
from depthfit.fit import FitConfig, Fitter, ImageInput
from depthfit.fit.stages import ALL_UNKNOWNS, Parts, Plan, Scheduler
from depthfit.fit.system import Matches
from depthfit.kernels import triton_kernels
from depthfit.run.device import choose_device
from depthfit.solver import LevenbergMarquardtConfig, minimize
from depthfit.state import FitState
from depthfit.synth import SynthConfig

HELD = "associations held"
WHOLE = "whole search"


@dataclass
class NumericsConfig:
    """Settings of ``depthfit bench numerics``.

    Attributes:
        out: Folder of scene, table and ``numerics.json``.
        images: Number of images, one person each.
        seed: Of the scene.
        steps: Of the comparison with associations held.
        device: Of the fits in single precision: ``auto``, ``cpu`` or ``cuda``.
        scene: Settings of the scene; images, seed and people are set from above.
        fit: Settings of the fits.
    """

    out: str = "output/bench"
    images: int = 64
    seed: int = 1
    steps: int = 30
    device: str = "cpu"
    scene: SynthConfig = field(default_factory=bench_scene)
    fit: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True)
class Agreement:
    """How far apart two fits of the same people are.

    Attributes:
        joints_median_mm, joints_p99_mm, joints_max_mm: Quantiles over people and joints of the distance
            between joints, each about its own pelvis.
        focal_p99, focal_max: Quantiles of the difference of the log focal.
        verdicts: Share of equal verdicts, or ``None`` where none was asked for.
    """

    joints_median_mm: float
    joints_p99_mm: float
    joints_max_mm: float
    focal_p99: float
    focal_max: float
    verdicts: float | None


def run_numerics(config: NumericsConfig) -> str:
    """Make the scene where it is not there yet, fit twice, and return the Markdown table.

    It is also written to ``out/numerics.md`` and ``out/numerics.json``.
    """
    out = Path(config.out)
    device = choose_device(config.device)
    scene = replace(config.scene, images=config.images, seed=config.seed, people_weights=(1.0,))
    folder = ensure_scene(scene, out / f"scene_{config.seed}_{config.images}")
    inputs = read_inputs([(folder, scene)], config.fit, config.seed)
    found = compare(inputs, config.fit, device, config.steps)
    text = f"{len(inputs)} people, single precision on {device.type}\n\n{numerics_table(found)}"
    data = {name: vars(agreement) for name, agreement in found.items()}
    for name, content in (("numerics.md", text), ("numerics.json", json.dumps(data, indent=2))):
        with atomic_path(out / name) as temporary:
            temporary.write_text(content + "\n")
    return text


@torch.no_grad()
def compare(
    inputs: list[ImageInput], config: FitConfig, device: torch.device, steps: int
) -> dict[str, Agreement]:
    """Single precision on ``device`` against double precision on the CPU, by comparison."""
    body = load_body()
    exact = Fitter(body.to(dtype=torch.float64), None, config).solve(inputs)
    single = Fitter(body, None, config, device).solve(inputs)
    matches = exact.after.fit.matches
    held = _solve(exact.scheduler, matches, steps)
    with triton_kernels(device.type == "cuda" and config.solver.kernels):
        other = _solve(single.scheduler, matches.to(device, torch.float32), steps)
    verdicts = float((exact.verdict == single.verdict.cpu()).double().mean())
    return {
        HELD: _agreement(exact.scheduler, held, single.scheduler, other, None),
        WHOLE: _agreement(exact.scheduler, exact.after.state, single.scheduler, single.after.state, verdicts),
    }


def _solve(stages: Scheduler, matches: Matches, steps: int) -> FitState:
    """From the prediction, with given associations, to where steps or rounding end it: an end at a small fall
    of the cost would come at another step in another precision."""
    start = stages.start()
    plan = Plan(ALL_UNKNOWNS, Parts())
    fit = stages.assemble(matches, stages.space.chart(start.people), plan, stages.robust(1.0))
    return minimize(fit, start, LevenbergMarquardtConfig(steps, relative_tolerance=0.0))[0]


def _agreement(
    exact: Scheduler, wanted: FitState, single: Scheduler, found: FitState, verdicts: float | None
) -> Agreement:
    joints = (_joints(exact, wanted) - _joints(single, found)).norm(dim=-1).flatten() * 1e3
    focal = (wanted.images.log_focal - found.images.log_focal.cpu().double()).abs()
    return Agreement(
        joints_median_mm=float(joints.median()),
        joints_p99_mm=float(joints.quantile(0.99)),
        joints_max_mm=float(joints.max()),
        focal_p99=float(focal.quantile(0.99)),
        focal_max=float(focal.max()),
        verdicts=verdicts,
    )


def _joints(stages: Scheduler, state: FitState) -> Tensor:
    """(N, 24, 3) m about the pelvis."""
    people = state.people
    return stages.body.skeleton(people.root, people.pose, people.betas).position.cpu().double()


def numerics_table(found: dict[str, Agreement]) -> str:
    """Markdown, a row a comparison."""
    lines = [
        "| single against double precision | joints, median mm | 99 % | largest "
        "| focal, 99 % | largest | same verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        same = "" if one.verdicts is None else f"{one.verdicts:.1%}"
        lines.append(
            f"| {name} | {one.joints_median_mm:.4f} | {one.joints_p99_mm:.3f} | {one.joints_max_mm:.3f} "
            f"| {one.focal_p99:.3%} | {one.focal_max:.3%} | {same} |"
        )
    return "\n".join(lines)
