"""A finished unit becomes a shard; finished shards become the documents of the dataset."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from depthfit.atomic import atomic_path
from depthfit.errors import DepthfitError, InputError
from depthfit.pseudo import target_coco, target_npz, target_tars
from depthfit.pseudo.layout import Layout, read_plan
from depthfit.pseudo.manifest import Entry, file_entry
from depthfit.pseudo.part import read_index, read_part, write_index
from depthfit.pseudo.provenance import of_shard
from depthfit.pseudo.records import OUTCOMES, ChunkRef, UnitPlan
from depthfit.pseudo.stages import Job, target_kind

DOCUMENTS = {"npz": "labels.npz", "coco": "annotations.json"}


def assemble(job: Job, unit: str, provenance: dict[str, Any]) -> Entry:
    """Put a unit's parts together: shard and index. Returns its line for the manifest.

    A disk that is full or read-only is returned under ``storage_error``.

    Raises:
        DepthfitError: The parts are not exactly the unit's people.
    """
    layout = job.layout
    plan = read_plan(layout.plan(unit))
    rows = _rows(layout, plan)
    flat = [row for people in rows for row in people]
    provenance = of_shard(provenance, flat)
    files: dict[str, Any] = {}
    try:
        if target_kind(job.source, job.config) == "tars":
            with atomic_path(layout.shard(unit)) as temporary:
                target_tars.write_shard(plan, rows, temporary, provenance)
            files[f"shards/{unit}.tar"] = file_entry(layout.shard(unit))
        with atomic_path(layout.index(unit)) as temporary:
            write_index(temporary, flat, provenance)
        files[f"index/{unit}.parquet"] = file_entry(layout.index(unit))
    except OSError as error:
        return {"unit": unit, "storage_error": f"{layout.root}: {error.strerror or error}"}
    outcomes = Counter(str(row["outcome"]) for row in flat)
    return {
        "unit": unit,
        "images": len(plan.items),
        "people": plan.people,
        "outcomes": {name: outcomes.get(name, 0) for name in OUTCOMES},
        "reasons": dict(Counter(word for row in flat for word in reason_words(str(row["reason"])))),
        "evidence": provenance["evidence_used"],
        "written": sum(bool(row["written"]) for row in flat),
        "faults": list(plan.faults),
        "files": files,
    }


def reason_words(reason: str) -> list[str]:
    """The words that are counted of a row's reasons: what stands before each colon."""
    return [part.split(":")[0].strip() for part in reason.split("; ") if part]


def _rows(layout: Layout, plan: UnitPlan) -> list[list[dict[str, Any]]]:
    """The people of each item, checked against the plan."""
    found: Iterator[dict[str, Any]] = (
        row for index in range(len(plan.chunks)) for row in _part(layout, ChunkRef(plan.unit.name, index))
    )
    rows: list[list[dict[str, Any]]] = []
    for item in plan.items:
        people = [row for _, row in zip(range(item.people), found, strict=False)]
        keys = [row["key"] for row in people]
        numbers = [row["person"] for row in people]
        outcomes = {row["outcome"] for row in people}
        if keys != [item.key] * item.people or len(set(numbers)) != len(numbers):
            raise DepthfitError(f"{plan.unit.name}: the people of {item.key} are not those of the source")
        if not outcomes <= set(OUTCOMES):
            raise DepthfitError(f"{plan.unit.name}: {item.key}: outcomes {sorted(outcomes)}")
        rows.append(people)
    left = sum(1 for _ in found)
    if left:
        raise DepthfitError(f"{plan.unit.name}: {left} people more than the source has")
    return rows


def _part(layout: Layout, chunk: ChunkRef) -> list[dict[str, Any]]:
    path = layout.part(chunk)
    try:
        return read_part(path)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        # Away with it, so that the next run makes it again.
        path.unlink(missing_ok=True)
        fix = "It was removed: run the same command again."
        raise InputError(path, "part", f"damaged ({error})", fix) from error


def drop_parts(layout: Layout, unit: str) -> None:
    """Remove a unit's parts, once the manifest has it."""
    shutil.rmtree(layout.parts(unit), ignore_errors=True)


def write_documents(
    job: Job, source: Path, units: list[str], provenance: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """The one file of a dataset that has one; returns its name with length and checksum."""
    kind = target_kind(job.source, job.config)
    if kind == "tars":
        return {}
    path = job.layout.root / DOCUMENTS[kind]
    rows = (row for unit in units for row in read_index(job.layout.index(unit)))
    with atomic_path(path) as temporary:
        if kind == "coco":
            target_coco.rewrite(source, temporary, rows, provenance)
        elif job.source.kind == "npz":
            target_npz.rewrite(source, temporary, rows, provenance)
        else:
            target_npz.write_new(temporary, rows, provenance)
    return {path.name: file_entry(path)}
