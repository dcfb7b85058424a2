"""``depthfit bench speed``: seconds a person of a batch, by stage, and the memory it takes."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.progress import track

from baselines import InitContext, initialiser
from depthfit.atomic import atomic_path
from depthfit.bench.clock import StageClock
from depthfit.body.load import load_body
from depthfit.evidence.scene import Scene, read_scene
from depthfit.fit import FitConfig, Fitter, PersonFit, fitter, stages
from depthfit.fit.adapter import image_input
from depthfit.fit.space import RotationSpace, TokenSpace
from depthfit.fit.system import BodyFit
from depthfit.run.device import choose_device
from depthfit.solver import ArrowSystem
from depthfit.synth import SynthConfig, make_scene
from depthfit.tokens.load import load_tokenizer

QUICK_IMAGES, QUICK_REPEATS = 4, 1
READ, PREPARE, ASSOCIATE = "read the files", "prepare inputs", "association (rasteriser, matching)"
CHART, LINEARIZE = "chart of the pose space (decoder Jacobian)", "linearise"
SOLVE, STEP, COST, REST = "solve", "step (decoder)", "cost", "verdict, uncertainty and the rest"
STAGES = (READ, PREPARE, ASSOCIATE, CHART, LINEARIZE, SOLVE, STEP, COST, REST)
WATCHED = (
    (fitter, "make_batch", PREPARE),
    (fitter, "pose_space", PREPARE),
    (stages, "associate", ASSOCIATE),
    (TokenSpace, "chart", CHART),
    (RotationSpace, "chart", CHART),
    (BodyFit, "linearize", LINEARIZE),
    (ArrowSystem, "damped", SOLVE),
    (ArrowSystem, "solve", SOLVE),
    (BodyFit, "retract", STEP),
    (BodyFit, "cost", COST),
)
"""(module or class, function, stage)."""


@dataclass
class SpeedConfig:
    """Settings of ``depthfit bench speed``.

    Attributes:
        out: Folder of scene and table.
        images: Images with one person each; they are fitted as one batch.
        seed: Of the scene.
        quick: Fit 4 people once.
        repeats: Runs, of which the median is given.
        device: ``auto``, ``cpu`` or ``cuda``.
        fit: Settings of the fit.
    """

    out: str = "output/bench"
    images: int = 16
    seed: int = 1
    quick: bool = False
    repeats: int = 3
    device: str = "cpu"
    fit: FitConfig = field(default_factory=FitConfig)


def run_speed(config: SpeedConfig) -> str:
    """Make the scene where it is not there yet, fit it ``repeats`` times; returns the Markdown table.

    The table is also written to ``out``. Seconds are those of the wall clock.
    """
    images, repeats = (QUICK_IMAGES, QUICK_REPEATS) if config.quick else (config.images, config.repeats)
    out, device = Path(config.out), choose_device(config.device)
    folder = out / f"speed_{config.seed}_{images}"
    scene_config = SynthConfig(seed=config.seed, images=images, people_weights=(1.0,))
    if not folder.is_dir():
        make_scene(scene_config, folder)
    scene = read_scene(folder, scene_config.keypoint_format)
    body, tokenizer = load_body(), load_tokenizer()
    engine = Fitter(body, tokenizer, config.fit, device)
    context = InitContext(body, tokenizer, config.fit, device, config.seed)
    clocks, fits = [], list[PersonFit]()
    for _ in track(range(repeats), description="Fitting"):
        clock, fits = _measure(scene, engine, context)
        clocks.append(clock)
    table = speed_table([clock.seconds for clock in clocks], fits, device)
    with atomic_path(out / "speed.md") as temporary:
        temporary.write_text(table + "\n")
    return table


def _measure(scene: Scene, engine: Fitter, context: InitContext) -> tuple[StageClock, list[PersonFit]]:
    clock, start = StageClock(engine.device), initialiser("predictions")
    with clock.watching(WATCHED), clock.stage(REST):
        inputs = []
        for name in scene.names:
            with clock.stage(READ):
                evidence = scene.read(name)
            with clock.stage(PREPARE):
                people = [p for p in start(evidence, context) if p.detection is not None]
                if people:
                    inputs.append(image_input(evidence, people, engine.config))
        fits = [fit for image in engine.fit(inputs) for fit in image]
    return clock, fits


def speed_table(runs: list[dict[str, float]], fits: list[PersonFit], device: torch.device) -> str:
    """Markdown: seconds a person by stage, median over the runs, and how they were measured."""
    count = len(fits)
    seconds = {name: median(run.get(name, 0.0) for run in runs) / count for name in STAGES}
    total = median(sum(run.values()) for run in runs) / count
    lines = ["| stage | s a person | share |", "|---|---|---|"]
    lines += [f"| {name} | {value:.3f} | {value / total:.0%} |" for name, value in seconds.items()]
    lines.append(f"| all | {total:.3f} | |")
    how = f"{count} people in one batch, median of {len(runs)} runs, {_place(device)}"
    steps = f"{median(fit.iterations for fit in fits):g} accepted steps a person (median)"
    return "\n".join([*lines, "", f"{how}; {steps}; {_memory(device)}."])


def _place(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"peak GPU memory {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    # Imported here: Windows does not have it, and nothing else needs it.
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"peak memory of the process {peak / 2**30:.1f} GiB"
