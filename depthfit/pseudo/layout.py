"""Where things are in an output folder."""

from __future__ import annotations

import dataclasses
import gzip
import json
from functools import lru_cache
from pathlib import Path

from depthfit.atomic import atomic_path
from depthfit.pseudo.records import ChunkRef, ItemRef, Unit, UnitPlan

MANIFEST, CONFIG, SUMMARY, CARD, REPORT = (
    "manifest.jsonl", "config.yaml", "summary.json", "README.md", "report.html",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths below an output folder."""

    root: Path

    def plan(self, unit: str) -> Path:
        return self.root / "plan" / f"{unit}.json.gz"

    def parts(self, unit: str) -> Path:
        return self.root / "parts" / unit

    def part(self, chunk: ChunkRef) -> Path:
        return self.parts(chunk.unit) / f"{chunk.index:05d}.npz"

    def shard(self, unit: str) -> Path:
        return self.root / "shards" / f"{unit}.tar"

    def index(self, unit: str) -> Path:
        return self.root / "index" / f"{unit}.parquet"

    @property
    def manifest(self) -> Path:
        return self.root / MANIFEST


def write_plan(path: Path, plan: UnitPlan) -> None:
    """Write a plan atomically."""
    content = {
        "unit": dataclasses.asdict(plan.unit),
        "items": [[i.key, i.people, i.where, i.error] for i in plan.items],
        "chunks": plan.chunks,
        "faults": plan.faults,
    }
    with atomic_path(path) as temporary:
        # No time stamp inside: the same source gives the same bytes.
        temporary.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))


def read_plan(path: Path) -> UnitPlan:
    """Read a plan."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    items = tuple(ItemRef(*fields) for fields in content["items"])
    chunks = tuple((first, last) for first, last in content["chunks"])
    return UnitPlan(Unit(**content["unit"]), items, chunks, tuple(content["faults"]))


@lru_cache(maxsize=8)
def cached_plan(path: Path) -> UnitPlan:
    """The plan, kept for the next chunk of the same unit. Plans never change."""
    return read_plan(path)
