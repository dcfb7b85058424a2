"""``depthfit bench pseudo``: runs on Ray under kills, and with one worker and two, against the model."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from depthfit.atomic import atomic_path
from depthfit.bench.scenes import ensure_scene
from depthfit.errors import DepthfitError
from depthfit.pseudo.check import check
from depthfit.pseudo.cost import service_times, simulate
from depthfit.pseudo.observe import RECEIPTS, Receipt, memory_figures, read_receipts
from depthfit.pseudo.synthetic import write_tars
from depthfit.synth import SynthConfig

POLL = 0.2
MAX_STARTS = 50
COARSE = [
    "fit.solver.rounds=2", "fit.solver.polish=0", "fit.solver.grid=64",
    "fit.solver.hypotheses=false", "fit.depth.samples=200",
]  # fmt: skip
"""What is measured is the machinery; a coarse fit makes it work harder a second."""


def small_scene() -> SynthConfig:
    """Small pictures with one to three people."""
    return SynthConfig(
        seed=7, width=320, height=240, people_weights=(0.6, 0.3, 0.1), token_probs=False, vertices=False
    )


@dataclass
class PseudoBenchConfig:
    """Settings of ``depthfit bench pseudo``.

    Attributes:
        out: Folder of tars and runs.
        images: Images, with 1.5 people each on average.
        images_a_tar: Images in a tar.
        workers: Fitting processes of the run under kills, and of the second timed run.
        worker_kills: Fitting processes killed.
        driver_kills: Drivers killed; each is started again.
        timed_images: Images of the timed runs; zero leaves them out.
        chunk: People in a chunk.
        settings: Further settings of every run.
        seed: Of the kills.
        scene: Settings of the pictures.
    """

    out: str = "output/bench/pseudo"
    images: int = 700
    images_a_tar: int = 50
    workers: int = 2
    worker_kills: int = 6
    driver_kills: int = 2
    timed_images: int = 100
    chunk: int = 8
    settings: list[str] = field(default_factory=lambda: list(COARSE))
    seed: int = 0
    scene: SynthConfig = field(default_factory=small_scene)


def run_pseudo(config: PseudoBenchConfig) -> str:
    """Make tars, run, kill, count, time; returns Markdown, also written to ``out``."""
    root = Path(config.out)
    tars = _tars(config, root)
    lines = _under_kills(config, tars, root / "killed")
    if config.timed_images:
        lines += ["", *_timed(config, tars, root)]
    text = "\n".join(lines)
    with atomic_path(root / "pseudo.md") as temporary:
        temporary.write_text(text + "\n")
    return text


def _tars(config: PseudoBenchConfig, root: Path) -> Path:
    scene = ensure_scene(replace(config.scene, images=config.images), root / f"scene_{config.images}")
    # Inside the scene: tars of another one can never be taken for this one's.
    folder = scene / f"tars_{config.images_a_tar}"
    if not folder.is_dir():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        write_tars(scene, partial, config.scene.keypoint_format, config.images_a_tar)
        partial.rename(folder)
    return folder


def _command(config: PseudoBenchConfig, source: Path, out: Path, workers: int) -> list[str]:
    settings = [
        f"workers={workers}",
        "engine=ray",
        "report_people=0",
        f"chunk={config.chunk}",
        *config.settings,
    ]
    return [sys.executable, "-m", "depthfit.cli.main", "pseudo-gt", str(source), str(out), *settings]


def _under_kills(config: PseudoBenchConfig, tars: Path, out: Path) -> list[str]:
    """Run to the end while workers and drivers are killed at random moments."""
    shutil.rmtree(out, ignore_errors=True)
    rng = random.Random(config.seed)
    kinds = ["worker"] * config.worker_kills + ["driver"] * config.driver_kills
    rng.shuffle(kinds)
    # Chunks are known only once the run has planned: a fifth fewer than 1.5 people an image make, as images
    # are not cut.
    expected = max(round(1.2 * config.images / config.chunk), len(kinds) + 1)
    moments = sorted(rng.sample(range(1, expected), len(kinds)))
    killed, starts, began = [], 0, time.perf_counter()
    while True:
        starts += 1
        if starts > MAX_STARTS:
            raise DepthfitError(f"the run did not end after {MAX_STARTS} starts; see {out}")
        process = subprocess.Popen(_command(config, tars, out, config.workers), stdout=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(POLL)
            log = read_receipts(out / RECEIPTS)
            if kinds and len(log) >= moments[0]:
                kind = kinds.pop(0)
                moments.pop(0)
                victim = process.pid if kind == "driver" else _worker(log, process.pid)
                if victim is not None:
                    os.kill(victim, signal.SIGKILL)
                    killed.append(f"{kind} after {len(log)} chunks")
        if process.returncode == 0:
            break
    seconds = time.perf_counter() - began
    if kinds:
        raise DepthfitError(f"{out}: it was over before {', '.join(kinds)} could be killed; add images")
    problems = check(str(out), str(tars))
    if problems:
        raise DepthfitError(f"{out}: {problems[0]} (and {len(problems) - 1} more)")
    return _killed_lines(out, killed, starts, seconds)


def _killed_lines(out: Path, killed: Sequence[str], starts: int, seconds: float) -> list[str]:
    summary = json.loads((out / "summary.json").read_text())
    log = read_receipts(out / RECEIPTS)
    again = len(log) - len({line["chunk"] for line in log})
    memory = memory_figures(log)
    longest = sorted(memory.values(), key=lambda m: -m["people"])[:2]
    outcomes = ", ".join(f"{count} {name}" for name, count in summary["outcomes"].items())
    return [
        f"{summary['people']} people in {summary['images']} images of {summary['shards']} tars: "
        f"{outcomes}; {sum(summary['outcomes'].values())} accounted for, none twice; {seconds:.0f} s with "
        f"{starts} starts.",
        f"Killed: {'; '.join(killed)}. Chunks whose receipt came twice: {again}.",
        "Peak memory of the fitting processes that lived longest: "
        + "; ".join(
            f"{m['early_gib']:.2f} GiB after a tenth, {m['end_gib']:.2f} GiB after {m['people']:.0f} people"
            for m in longest
        )
        + ".",
    ]


def _worker(log: Sequence[Receipt], driver: int) -> int | None:
    """A living fitting process of this driver's cluster that has finished a chunk."""
    for line in reversed(log):
        pid = int(line["times"]["fit"][2].rpartition(":")[2])
        if Path(f"/proc/{pid}").exists() and driver in _ancestors(pid):
            return pid
    return None


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
        except OSError:
            break
        pid = int(rest.split()[1])
        found.append(pid)
    return found


def _timed(config: PseudoBenchConfig, tars: Path, root: Path) -> list[str]:
    """One worker and several, undisturbed, and what the simulation says of both from the first's chunks."""
    count = -(-config.timed_images // config.images_a_tar)
    some = root / "some"
    shutil.rmtree(some, ignore_errors=True)
    some.mkdir()
    for path in sorted(tars.glob("*.tar"))[:count]:
        shutil.copy(path, some)
    logs: dict[int, list[Receipt]] = {}
    for workers in (1, config.workers):
        out = root / f"timed_{workers}"
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(_command(config, some, out, workers), stdout=subprocess.DEVNULL, check=True)
        logs[workers] = read_receipts(out / RECEIPTS)
    service = service_times(logs[1])
    lines = [
        "| workers | people | fit-bound part | people/s | speed-up | simulated from the first | its error |",
        "|---|---|---|---|---|---|---|",
    ]
    first = _fit_span(logs[1])
    for workers, log in logs.items():
        span = _fit_span(log)
        processes: dict[str, int] = dict.fromkeys(service[0], 1) | {"fit": workers}
        predicted = simulate(service, processes)
        people = sum(line["people"] for line in log)
        lines.append(
            f"| {workers} | {people} | {span:.1f} s | {people / span:.2f} | {first / span:.2f} | "
            f"{predicted:.1f} s | {predicted / span - 1:+.0%} |"
        )
    return lines


def _fit_span(log: Sequence[dict[str, Any]]) -> float:
    """Seconds from the first fit's start to the last one's end."""
    spans = [line["times"]["fit"] for line in log]
    return max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
