"""What a big run would take: a model from a small run's receipts, by formula and by simulation.

Formula: every stage, the storage, the network and the one driver is a server with a rate; the slowest sets
the pace. Simulation: the measured chunks, drawn again and again, pass the stages with so many processes each,
and wait where the next stage is behind (Ray's back-pressure). It is what is held against measured runs.
"""

from __future__ import annotations

import heapq
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from depthfit.errors import InputError
from depthfit.pseudo.layout import MANIFEST, SUMMARY, Layout
from depthfit.pseudo.manifest import Manifest
from depthfit.pseudo.observe import RECEIPTS, Receipt, read_receipts
from depthfit.pseudo.stages import STAGE_NAMES

BUFFER = 4
"""Chunks that may wait in front of a stage, a process of it: what Ray Data lets through."""
LIGHT = ("read", "gate", "write")
"""What the cores beside a GPU do."""
PROBE_APPENDS = 50
HOUR = 3600.0


@dataclass
class ModelConfig:
    """Settings of ``depthfit pseudo-gt model``.

    Attributes:
        run: Output folder of a finished run, whose costs are taken.
        images: Of the big run.
        people_per_image: ``null`` takes the run's.
        gpus: Numbers of GPUs to tell of.
        fit_people_per_s: Of one GPU; ``null`` takes the run's process for one.
        perceive_images_per_s: Of one GPU, where depth is estimated; ``null`` takes the run's process for one,
            if it estimated depth.
        cpus_per_gpu: Cores beside each GPU that read and write.
        chunk: People in a chunk; a GPU wants more than a core.
        driver_ms: Of the driver a chunk: handing out, receipts. On two busy cores 600 empty chunks took 17 ms
            each, processes and all.
        storage_mb_s: The storage gives and takes together.
        network_mb_s: Each machine of 8 GPUs sends and takes.
        shard_images: Images in a shard.
        shards: Shards at which the manifest is measured.
    """

    run: str = "output/pseudo"
    images: int = 10_000_000
    people_per_image: float | None = None
    gpus: list[int] = field(default_factory=lambda: [1, 8, 64])
    fit_people_per_s: float | None = None
    perceive_images_per_s: float | None = None
    cpus_per_gpu: int = 8
    chunk: int = 256
    driver_ms: float = 20.0
    storage_mb_s: float = 1000.0
    network_mb_s: float = 1000.0
    shard_images: int = 1000
    shards: int = 100_000


@dataclass(frozen=True)
class Costs:
    """Measured, a person (or an image where said).

    Attributes:
        seconds: By stage.
        bytes_in: Read; bytes_moved: between processes; shard: in the shard; index: in the index.
        people_per_image: As it says.
    """

    seconds: dict[str, float]
    bytes_in: float
    bytes_moved: float
    shard: float
    index: float
    people_per_image: float


def measured(run: Path) -> Costs:
    """Costs of a finished run.

    Raises:
        InputError: There is none.
    """
    if not (run / SUMMARY).is_file():
        raise InputError(run, SUMMARY, "not there", "Run `depthfit pseudo-gt` first, on a sample.")
    summary = json.loads((run / SUMMARY).read_text())
    receipts = read_receipts(run / RECEIPTS)
    people = max(sum(r["people"] for r in receipts), 1)
    files = {n: f["bytes"] for e in Manifest(Layout(run)).entries.values() for n, f in e["files"].items()}
    stored = {
        kind: sum(size for n, size in files.items() if n.startswith(kind)) for kind in ("shards", "index")
    }
    return Costs(
        seconds={name: figures["s_per_person"] for name, figures in summary["stages"].items()},
        bytes_in=summary["bytes"]["bytes_in"] / people,
        bytes_moved=summary["bytes"]["bytes_moved"] / people,
        shard=stored["shards"] / max(summary["people"], 1),
        index=stored["index"] / max(summary["people"], 1),
        people_per_image=summary["people"] / max(summary["images"], 1),
    )


def rates(costs: Costs, config: ModelConfig, gpus: int) -> dict[str, float]:
    """People a second that each part of a cluster can serve."""
    machines = -(-gpus // 8)
    light = sum(costs.seconds[name] for name in LIGHT)
    # A shard is read once for its labels and once more when it is written anew.
    stored = 2 * costs.bytes_in + costs.shard + costs.index
    moved = max(costs.bytes_moved, 1.0)
    return {
        "GPU": gpus / gpu_seconds(costs, config),
        "read, gate, write": gpus * config.cpus_per_gpu / max(light, 1e-9),
        "storage": config.storage_mb_s * 1e6 / max(stored, 1.0),
        "network": machines * config.network_mb_s * 1e6 / moved,
        "driver": 1000 / config.driver_ms * config.chunk,
    }


def gpu_seconds(costs: Costs, config: ModelConfig) -> float:
    """Of one GPU a person: perceiving, where depth is estimated, and fitting."""
    fit, perceive = costs.seconds["fit"], costs.seconds.get("perceive", 0.0)
    if config.fit_people_per_s is not None:
        fit = 1 / config.fit_people_per_s
    if config.perceive_images_per_s is not None:
        per_image = config.people_per_image or costs.people_per_image
        perceive = 1 / (config.perceive_images_per_s * per_image)
    return fit + perceive


def model_table(config: ModelConfig) -> str:
    """Markdown: a row for each number of GPUs, and what the manifest costs."""
    costs = measured(Path(config.run))
    per_image = config.people_per_image or costs.people_per_image
    people = config.images * per_image
    lines = [
        f"{config.images:,} images, {people:,.0f} people; costs a person of {config.run}: "
        + ", ".join(f"{name} {costs.seconds[name]:.4f} s" for name in costs.seconds)
        + f"; {costs.bytes_in / 1e3:.0f} kB read, {costs.bytes_moved / 1e3:.0f} kB moved, "
        f"{(costs.shard + costs.index) / 1e3:.0f} kB written.",
        "",
        "| GPUs | people/s | time | bottleneck | next | storage written | network, all machines |",
        "|---|---|---|---|---|---|---|",
    ]
    for gpus in config.gpus:
        found = rates(costs, config, gpus)
        slowest, second = sorted(found, key=lambda name: found[name])[:2]
        pace = found[slowest]
        written = people * (costs.shard + costs.index)
        lines.append(
            f"| {gpus} | {pace:,.0f} | {duration(people / pace)} | {slowest} | "
            f"{second} at {found[second] / pace:.1f}x | {written / 1e12:.2f} TB | "
            f"{costs.bytes_moved * pace / 1e6:,.0f} MB/s |"
        )
    cost = manifest_cost(config.shards)
    lines += [
        "",
        f"Manifest at {config.shards:,} shards: {cost['bytes'] / 1e6:.0f} MB, read in {cost['read_s']:.1f} "
        f"s, {cost['append_ms']:.2f} ms to append one (at the start {cost['first_ms']:.2f} ms): "
        f"{duration(config.shards * cost['append_ms'] / 1000)} of the driver's time in all.",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 2 * HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < 48 * HOUR else f"{seconds / 24 / HOUR:.1f} days"


def simulate(service: Sequence[dict[str, float]], processes: dict[str, int], buffer: int = BUFFER) -> float:
    """Seconds until the last of the chunks has passed all stages.

    Args:
        service: Seconds of each chunk in each stage.
        processes: Of each stage.
        buffer: Chunks that may wait in front of a stage, a process of it.
    """
    names = [name for name in STAGE_NAMES if name in processes]
    free = {name: [0.0] * processes[name] for name in names}
    starts: dict[str, list[float]] = {name: [] for name in names}
    last = 0.0
    for n, chunk in enumerate(service):
        ready = 0.0
        for name, following in zip(names, (*names[1:], None), strict=True):
            begin = max(ready, heapq.heappop(free[name]))
            if following is not None:
                ahead = n - buffer * processes[following]
                begin = max(begin, starts[following][ahead]) if ahead >= 0 else begin
            starts[name].append(begin)
            ready = begin + chunk[name]
            heapq.heappush(free[name], ready)
        last = max(last, ready)
    return last


def service_times(receipts: Sequence[Receipt]) -> list[dict[str, float]]:
    """Seconds of each measured chunk in each stage."""
    return [{name: end - start for name, (start, end, _) in r["times"].items()} for r in receipts]


def wall(receipts: Sequence[Receipt]) -> float:
    """Seconds from the first stage's first start to the last one's last end."""
    spans = [span for r in receipts for span in r["times"].values()]
    return max(end for _, end, _ in spans) - min(start for start, _, _ in spans)


def manifest_cost(shards: int) -> dict[str, float]:
    """Bytes of a manifest of so many shards, and the time to read and to append to it, measured here."""
    folder = Path(tempfile.mkdtemp())
    try:
        layout = Layout(folder)
        manifest = Manifest(layout)
        first = _appends(manifest, 0)
        line = layout.manifest.read_bytes().splitlines(keepends=True)[0]
        # The same line again and again is as long to read as others.
        with (folder / MANIFEST).open("ab") as file:
            for _ in range(shards - PROBE_APPENDS):
                file.write(line)
        began = time.perf_counter()
        manifest = Manifest(layout)
        read = time.perf_counter() - began
        size = layout.manifest.stat().st_size
        return {
            "bytes": float(size),
            "read_s": read,
            "append_ms": _appends(manifest, shards),
            "first_ms": first,
        }
    finally:
        shutil.rmtree(folder)


def _appends(manifest: Manifest, first: int) -> float:
    digest = "0" * 64
    times = []
    for n in range(first, first + PROBE_APPENDS):
        name = f"{n:06d}"
        files = {
            f: {"bytes": 10**8, "sha256": digest} for f in (f"shards/{name}.tar", f"index/{name}.parquet")
        }
        outcomes = {"refined": 800, "original": 150, "dropped": 40, "failed": 10}
        reasons = {"reprojection": 90, "joint_sd": 80, "verdict": 20, "no_keypoints": 10}
        entry = {
            "unit": name, "images": 700, "people": 1000, "outcomes": outcomes, "reasons": reasons,
            "written": 960, "faults": [], "files": files,
        }  # fmt: skip
        began = time.perf_counter()
        manifest.append(entry)
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))
