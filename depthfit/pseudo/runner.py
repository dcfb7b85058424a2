"""A run: plan, stream, put together, count; and again only what is missing."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from depthfit.atomic import atomic_path
from depthfit.errors import DepthfitError, InputError
from depthfit.lock import lock
from depthfit.pseudo import card, observe
from depthfit.pseudo.assemble import assemble, drop_parts, write_documents
from depthfit.pseudo.config import PseudoConfig
from depthfit.pseudo.engine import Engine, LocalEngine
from depthfit.pseudo.layout import CARD, CONFIG, REPORT, SUMMARY, Layout, read_plan, write_plan
from depthfit.pseudo.manifest import Entry, Manifest
from depthfit.pseudo.open_source import open_source
from depthfit.pseudo.part import arrow
from depthfit.pseudo.provenance import FILE as PROVENANCE
from depthfit.pseudo.provenance import provenance
from depthfit.pseudo.records import OUTCOMES, Chunk, ChunkRef, Unit
from depthfit.pseudo.report import write_report
from depthfit.pseudo.stages import Job, target_kind
from depthfit.run.halving import OUT_OF_MEMORY

_log = logging.getLogger(__name__)
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}(\.[a-z]+)?$")
"""Names that ``atomic_path`` gives; what a killed process leaves."""
ERRORS = ("fit_error", "start_error", "read_error", OUT_OF_MEMORY)
MIN_ERRORS = 20
SOURCE_PATH = "source_path"
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class StorageError(DepthfitError):
    """The output cannot be written, or the source not be read."""

    def __init__(self, what: str) -> None:
        fix = "What is finished is kept: mend that (room, rights, the disk) and run the same command again."
        super().__init__(f"{what}. {fix}")


def run_pseudo_gt(
    source: str, out: str, config: PseudoConfig, console: Console | None = None
) -> dict[str, Any]:
    """Refine the labels of ``source`` into ``out``; goes on where an earlier run stopped.

    Args:
        source: See ``open_source``.
        out: The output folder.
        config: The settings.
        console: Of the progress bar.

    Returns:
        The contents of summary.json.

    Raises:
        InputError: The source or a setting cannot be used, or another run holds the output.
        StorageError: The output cannot be written, or the source not be read.
        DepthfitError: The counts do not add up, or the cluster failed.
    """
    config.validate()
    arrow()
    layout = Layout(Path(out).resolve())
    job = Job(open_source(source, config), config, str(layout.root))
    target_kind(job.source, config)
    try:
        with lock(layout.root):
            return _Run(job, str(Path(source).resolve()), console or Console(stderr=True)).run()
    except OSError as error:
        if error.errno in STORAGE:
            raise StorageError(f"{error.filename or layout.root}: {error.strerror}") from error
        raise


@dataclass(frozen=True)
class Planned:
    """What the driver has to know of a unit's plan: to read 100,000 plans itself would take it an hour.

    Attributes:
        name: Of the unit.
        people: In each of its chunks.
        missing: Numbers of the chunks that have no part yet.
    """

    name: str
    people: list[int]
    missing: list[int]


def plan_unit(job: Job, unit: Unit) -> Planned:
    """Write a unit's plan where there is none.

    Raises:
        InputError: The source cannot be read, or is another than the one that was planned.
    """
    path = job.layout.plan(unit.name)
    if path.is_file():
        plan = read_plan(path)
        if dataclasses.replace(plan.unit, bytes=0) != unit or plan.unit.bytes != _bytes(unit):
            fix = "Give another output folder."
            raise InputError(unit.path, "source", "changed since the run began", fix)
    else:
        plan = job.source.plan(dataclasses.replace(unit, bytes=_bytes(unit)))
        write_plan(path, plan)
    refs = [ChunkRef(unit.name, index) for index in range(len(plan.chunks))]
    return Planned(
        unit.name,
        [sum(item.people for item in plan.items[first:last]) for first, last in plan.chunks],
        [ref.index for ref in refs if not job.layout.part(ref).is_file()],
    )


def _bytes(unit: Unit) -> int:
    """Length of a unit's file; of a folder none is known."""
    path = Path(unit.path)
    return path.stat().st_size if path.is_file() else 0


class _Run:
    def __init__(self, job: Job, source: str, console: Console) -> None:
        self.job, self.source, self.console = job, source, console
        self.layout = job.layout
        self.manifest = Manifest(self.layout)
        target = target_kind(job.source, job.config)
        self.provenance = provenance(source, job.source.kind, target, job.config, job.source.regressor())
        if self.provenance["betas_left_out"]:
            _log.warning("%s: %s", source, self.provenance["betas_left_out"])
        self.left: dict[str, int] = {}
        self.people = self.errors = 0
        self.spoilt: list[ChunkRef] = []
        self.begun = time.time()

    def run(self) -> dict[str, Any]:
        self._check_settings()
        self._clean()
        units = self.job.source.units()
        names = [unit.name for unit in units]
        if len(set(names)) != len(names):
            raise InputError(self.source, "names", "two files of one name", "Rename one of them.")
        todo = [unit for unit in units if not self.manifest.is_done(unit.name)]
        if todo:
            # Whoever sees it sees a finished run, and this one no longer is.
            (self.layout.root / SUMMARY).unlink(missing_ok=True)
            engine = self._engine()
            try:
                self._work(engine, units, todo)
            finally:
                engine.close()
        return self._finish(names, len(todo))

    def _engine(self) -> Engine:
        if self.job.config.engine == "local":
            return LocalEngine()
        # Imported here: an extra that nothing else needs.
        from depthfit.pseudo.engine_ray import RayEngine

        return RayEngine(self.job.config)

    def _check_settings(self) -> None:
        """Labels of other settings, or of another source, are not mixed with these."""
        saved = self.layout.root / PROVENANCE
        # Its whole path stays here: shards go to others, whom the name alone concerns.
        now = {**self.provenance, SOURCE_PATH: self.source}
        if saved.is_file():
            before = json.loads(saved.read_text())
            for name in ("fingerprint", "source", SOURCE_PATH, "model_files", "depthfit"):
                if before.get(name) == now[name]:
                    continue
                if self._has_results():
                    fix = "Give another output folder, or the settings in its config.yaml."
                    raise InputError(saved, name, "the folder holds labels of others", fix)
                # A run that stopped at a mistake in its settings: its plans are of no use to this one.
                shutil.rmtree(self.layout.root / "plan", ignore_errors=True)
        with atomic_path(saved) as temporary:
            temporary.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n")
        with atomic_path(self.layout.root / CONFIG) as temporary:
            temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(self.job.config)))

    def _has_results(self) -> bool:
        parts = (self.layout.root / "parts").glob("*/[!.]*.npz")
        return bool(self.manifest.entries) or next(parts, None) is not None

    def _clean(self) -> None:
        """Remove what killed processes left half written."""
        for folder in ("", "plan", "parts", "shards", "index"):
            root = self.layout.root / folder
            paths = root.rglob(".*") if folder == "parts" else root.glob(".*")
            for path in list(paths) if root.is_dir() else []:
                if TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def _work(self, engine: Engine, units: list[Unit], todo: list[Unit]) -> None:
        chunks: list[ChunkRef] = []
        people = {name: entry["people"] for name, entry in self.manifest.entries.items()}
        ready: list[str] = []
        todo_people = 0
        for plan in engine.each(plan_unit, self.job, todo):
            people[plan.name] = sum(plan.people)
            todo_people += sum(plan.people[index] for index in plan.missing)
            self.left[plan.name] = len(plan.missing)
            chunks += [ChunkRef(plan.name, index) for index in plan.missing]
            if not plan.missing:
                ready.append(plan.name)
        # In the order of the source, so that shards are finished one after another.
        chunks.sort(key=lambda ref: (ref.unit, ref.index))
        total = sum(people[unit.name] for unit in units)
        with observe.Monitor(self.layout.root, total, total - todo_people, self.console) as monitor:
            for name in ready:
                engine.submit(assemble, self.job, name, self.provenance)
            for chunk in engine.stream(self.job, chunks):
                self._take(engine, chunk, monitor)
                self._book(engine.collect(wait=False))
            self._book(engine.collect(wait=True))

    def _take(self, engine: Engine, chunk: Chunk, monitor: observe.Monitor) -> None:
        if chunk.storage_error:
            raise StorageError(chunk.storage_error)
        monitor.note(chunk, engine.state())
        self._check_errors(chunk)
        self.left[chunk.ref.unit] -= 1
        if self.left[chunk.ref.unit] == 0:
            engine.submit(assemble, self.job, chunk.ref.unit, self.provenance)

    def _check_errors(self, chunk: Chunk) -> None:
        """Stop where most fits raise errors: then it is not the people, and they are to be tried again."""
        errors = [r for row in chunk.rows if (r := str(row["reason"])).split(":")[0] in ERRORS]
        self.people += len(chunk.rows)
        self.errors += len(errors)
        if errors:
            self.spoilt.append(chunk.ref)
        if self.errors >= MIN_ERRORS and self.errors > self.people / 2:
            for ref in self.spoilt:
                self.layout.part(ref).unlink(missing_ok=True)
                # A shard that has been put together of them is no longer done either.
                self.layout.index(ref.unit).unlink(missing_ok=True)
            raise DepthfitError(
                f"{self.errors} of the first {self.people} people ended in errors of the program: "
                f"{errors[-1]}. They are not counted as done: mend the cause and run the same command again."
            )

    def _book(self, entries: list[Entry]) -> None:
        for entry in entries:
            if "storage_error" in entry:
                raise StorageError(entry["storage_error"])
            self.manifest.append(entry)
            drop_parts(self.layout, entry["unit"])

    def _finish(self, names: list[str], worked: int) -> dict[str, Any]:
        entries = [self.manifest.entries[name] for name in names if name in self.manifest.entries]
        summary = counts(entries, names)
        held = {**self.provenance, "evidence_used": summary["evidence"]}
        documents = write_documents(self.job, Path(self.source), names, held)
        receipts = observe.read_receipts(self.layout.root / observe.RECEIPTS)
        summary |= {
            "documents": documents,
            "shards_made_now": worked,
            "seconds": round(time.time() - self.begun, 2),
            "engine": self.job.config.engine,
            "bytes": {
                name: sum(line[name] for line in receipts)
                for name in ("bytes_in", "bytes_moved", "bytes_out")
            },
            "manifest_bytes": self.layout.manifest.stat().st_size,
            "stages": observe.stage_figures(receipts),
            "queues": observe.queues(receipts),
            "memory": observe.memory_figures(receipts),
            "halvings": sum(max(h) for h in _halvings(receipts).values()),
            "fingerprint": self.provenance["fingerprint"],
            "betas_left_out": self.provenance["betas_left_out"],
        }
        with atomic_path(self.layout.root / CARD) as temporary:
            temporary.write_text(card.card(summary, self.provenance))
        write_report(self.job, names, summary, receipts, self.layout.root / REPORT)
        # Last: whoever sees it sees a finished run.
        with atomic_path(self.layout.root / SUMMARY) as temporary:
            temporary.write_text(json.dumps(summary, indent=2) + "\n")
        return summary


def counts(entries: list[Entry], names: list[str]) -> dict[str, Any]:
    """Sums over the manifest, checked.

    Raises:
        DepthfitError: A shard is missing, or a person is not in exactly one outcome.
    """
    missing = sorted(set(names) - {entry["unit"] for entry in entries})
    if missing:
        raise DepthfitError(f"{len(missing)} shards are missing, the first is {missing[0]}")
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    evidence: Counter[str] = Counter()
    for entry in entries:
        outcomes.update(entry["outcomes"])
        reasons.update(entry["reasons"])
        evidence.update(entry["evidence"])
        if sum(entry["outcomes"].values()) != entry["people"]:
            raise DepthfitError(
                f"{entry['unit']}: {entry['outcomes']} are not the {entry['people']} people of the source"
            )
    return {
        "shards": len(entries),
        "images": sum(entry["images"] for entry in entries),
        "people": sum(entry["people"] for entry in entries),
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "written": sum(entry["written"] for entry in entries),
        "reasons": dict(reasons.most_common()),
        "evidence": dict(evidence.most_common()),
        "faults": {entry["unit"]: entry["faults"] for entry in entries if entry["faults"]},
    }


def _halvings(receipts: list[observe.Receipt]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in receipts:
        found.setdefault(line["times"]["fit"][2], [0]).append(line["halvings"])
    return found
