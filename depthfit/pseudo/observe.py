"""What a run shows and remembers of itself: progress, rates, queues, memory."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from depthfit.pseudo.records import OUTCOMES, Chunk
from depthfit.pseudo.stages import STAGE_NAMES

RECEIPTS = "receipts.jsonl"
Receipt = dict[str, Any]


class Monitor:
    """The progress bar of a run, and its log of receipts.

    Args:
        out: The output folder.
        people: All people of the source; done: those that are finished already.
        console: Where to draw.
    """

    def __init__(self, out: Path, people: int, done: int, console: Console) -> None:
        self.path = out / RECEIPTS
        self.outcomes: Counter[str] = Counter()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            MofNCompleteColumn(),
            TextColumn("people"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("Refining", total=people, completed=done)

    def __enter__(self) -> Monitor:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def note(self, chunk: Chunk, state: str) -> None:
        """Count a chunk; ``state`` is the engine's."""
        self.outcomes.update(str(row["outcome"]) for row in chunk.rows)
        counts = ", ".join(f"{self.outcomes[name]} {name}" for name in OUTCOMES if self.outcomes[name])
        queue = f" [{state}]" if state else ""
        text = escape(f"Refining ({counts}){queue}")
        self.progress.update(self.task, advance=len(chunk.rows), description=text)
        with self.path.open("a") as file:
            file.write(json.dumps(receipt(chunk)) + "\n")


def receipt(chunk: Chunk) -> Receipt:
    """A chunk as a line of the log."""
    return {
        "chunk": chunk.ref.name,
        "people": len(chunk.rows),
        "times": chunk.times,
        "bytes_in": chunk.bytes_in,
        "bytes_moved": chunk.bytes_moved,
        "bytes_out": chunk.bytes_out,
        "memory": chunk.memory,
        "halvings": chunk.halvings,
    }


def read_receipts(path: Path) -> list[Receipt]:
    """The log's lines; one that a crash cut short is left out."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def stage_figures(receipts: Sequence[Receipt]) -> dict[str, dict[str, float]]:
    """Per stage: processes, busy seconds, seconds a person, people a second of all processes together."""
    figures = {}
    for name in STAGE_NAMES:
        spans = [(r["times"][name], r["people"]) for r in receipts if name in r["times"]]
        if not spans:
            continue
        busy = sum(end - start for (start, end, _), _ in spans)
        people = sum(n for _, n in spans)
        wall = max(end for (_, end, _), _ in spans) - min(start for (start, _, _), _ in spans)
        figures[name] = {
            "processes": float(len({process for (_, _, process), _ in spans})),
            "busy_s": busy,
            "s_per_person": busy / max(people, 1),
            "people_per_s": people / max(wall, 1e-9),
        }
    return figures


def queues(receipts: Sequence[Receipt]) -> dict[str, dict[str, float]]:
    """Chunks that waited in front of each stage but the first: mean over time and most at once.

    From the stages' own clocks: machines whose clocks differ blur it by as much.
    """
    figures = {}
    present = [name for name in STAGE_NAMES if any(name in r["times"] for r in receipts)]
    for before, after in pairwise(present):
        both = [r["times"] for r in receipts if before in r["times"] and after in r["times"]]
        events = sorted([(t[before][1], 1) for t in both] + [(t[after][0], -1) for t in both])
        if not events:
            continue
        times = np.array([t for t, _ in events])
        lengths = np.maximum(np.cumsum([step for _, step in events]), 0)
        span = max(float(times[-1] - times[0]), 1e-9)
        figures[after] = {
            "mean": float((lengths[:-1] * np.diff(times)).sum() / span),
            "most": float(lengths.max()),
        }
    return figures


def memory_series(receipts: Iterable[Receipt]) -> dict[str, list[tuple[float, int, int]]]:
    """Per fitting process: (s since its first chunk, people so far, peak bytes)."""
    series: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    begun: dict[str, float] = {}
    for line in sorted(receipts, key=lambda r: r["times"]["fit"][1]):
        _, end, process = line["times"]["fit"]
        begun.setdefault(process, end)
        people = series[process][-1][1] if series[process] else 0
        series[process].append((end - begun[process], people + line["people"], line["memory"]))
    return dict(series)


def memory_figures(receipts: Iterable[Receipt]) -> dict[str, dict[str, float]]:
    """Per fitting process: people, and peak GiB after the first tenth of its chunks and at the end."""
    return {
        process: {
            "people": float(points[-1][1]),
            "early_gib": points[len(points) // 10][2] / 2**30,
            "end_gib": points[-1][2] / 2**30,
        }
        for process, points in memory_series(receipts).items()
    }
