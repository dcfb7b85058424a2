"""Make, prepare and fit parts of a benchmark in several processes at once; what is done is not done again."""

from __future__ import annotations

import csv
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.progress import Progress

from depthfit.atomic import atomic_path
from depthfit.bench.fitting import Workbench
from depthfit.bench.scenes import ensure_scene
from depthfit.bench.split_prepare import prepare, prepared
from depthfit.bench.splits import Part
from depthfit.bench.variants import FITS, variants
from depthfit.errors import InputError
from depthfit.evidence.scene import read_scene
from depthfit.fit.config import FitConfig
from depthfit.run.device import choose_device
from depthfit.run.output import write_rows

INPUTS = ".prepared_"
"""How the folder of prepared inputs begins; it is there while a run is."""
PARTS_AHEAD = 2
"""Parts that wait for each process which makes them."""


@dataclass(frozen=True)
class Job:
    """What is done with every part.

    Attributes:
        out: Folder; scenes and fits of a part lie in a folder of its name.
        fit: Settings that all fits start from.
        device: Where to compute.
        seed: Of the initialiser.
    """

    out: str
    fit: FitConfig = field(default_factory=FitConfig)
    device: str = "auto"
    seed: int = 1

    def scene(self, part: Part) -> Path:
        """Folder of the part's scene."""
        return Path(self.out) / part.name / "scene"

    def fits(self, part: Part, key: str) -> Path:
        """fits.npz of the part under the fit ``key``."""
        return Path(self.out) / part.name / f"{key}.npz"


Work = Sequence[tuple[Part, Sequence[str]]]
"""Parts, and the fits of each."""


@dataclass
class Group:
    """Parts that are fitted together, in the same ways.

    Attributes:
        folders: Of the prepared inputs of each part.
        left: Number of tasks that the group waits for.
    """

    parts: list[Part]
    keys: tuple[str, ...]
    folders: list[Path] = field(default_factory=list)
    left: int = 0


def grouped(work: Work, job: Job, batch: int) -> list[Group]:
    """What is not done yet, in the order asked, in groups of ``batch`` people or little more."""
    groups: list[Group] = []
    room = 0
    for part, keys in work:
        missing = tuple(k for k in keys if not job.fits(part, k).is_file())
        if not missing:
            continue
        if room <= 0 or groups[-1].keys != missing:
            groups.append(Group([], missing))
            room = batch
        groups[-1].parts.append(part)
        room -= part.people
    return groups


class Pipeline:
    """Makes scenes and inputs in some processes while others fit what is ready.

    Args:
        job: What is done.
        workers: Processes that make and prepare.
        fit_workers: Processes that fit, each on the job's device. With one of each, all is done in this one.
        batch: People fitted together.
    """

    def __init__(self, job: Job, workers: int, fit_workers: int, batch: int) -> None:
        self._job, self._batch, self._workers = job, batch, workers
        self._fit_workers = fit_workers
        self._recorded = choose_device(job.device).type == "cuda"
        self._homes: dict[str, Executor] = {}
        self._pending: dict[Future[Any], tuple[Group, Part | str]] = {}
        self.troubles: list[str] = []
        """What failed, one sentence each; the rest goes on."""
        self._times: list[dict[str, Any]] = []
        self._begun = 0

    def run(self, phases: Sequence[Work], progress: Callable[[], None]) -> None:
        """Do the phases in order; ``progress`` is called whenever a group is done.

        Raises:
            InputError: A scene that is there is another one than asked for.
        """
        queue = [group for work in phases for group in grouped(work, self._job, self._batch)]
        Path(self._job.out).mkdir(parents=True, exist_ok=True)
        for left in Path(self._job.out).glob(f"{INPUTS}*"):
            # Of a run that was killed.
            shutil.rmtree(left)
        with ExitStack() as stack:
            # Closed first, and last: nothing more is begun, and prepared inputs go when nobody reads them.
            inputs = stack.enter_context(tempfile.TemporaryDirectory(prefix=INPUTS, dir=self._job.out))
            self._inputs = Path(inputs)
            alone = self._workers <= 1 and self._fit_workers <= 1
            self._makers = stack.enter_context(_Here() if alone else _processes(self._workers))
            self._fitters = [
                stack.enter_context(_Here() if alone else _processes(1)) for _ in range(self._fit_workers)
            ]
            for fitter in self._fitters if queue else []:
                # They start while the first scenes are made.
                _submit(fitter, _begin, self._job)
            bar = stack.enter_context(Progress())
            task = bar.add_task("Fitting", total=sum(len(g.keys) for g in queue))
            try:
                while queue or self._pending:
                    self._prepare_more(queue)
                    done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        group, what = self._pending.pop(future)
                        finished = self._take(future, group, what, queue)
                        # A group that ends with a part was left without any: none of its fits will come.
                        failed = len(group.keys) if finished else 0
                        bar.advance(task, failed if isinstance(what, Part) else 1)
                        if finished:
                            progress()
            except BaseException:
                for executor in (self._makers, *self._fitters):
                    executor.shutdown(wait=False, cancel_futures=True)
                raise

    def _prepare_more(self, queue: list[Group]) -> None:
        while queue:
            busy = {what.name for _, what in self._pending.values() if isinstance(what, Part)}
            # The same part can be asked for in two phases: its scene is made by one process alone.
            if len(busy) >= PARTS_AHEAD * self._workers or busy & {part.name for part in queue[0].parts}:
                return
            group = queue.pop(0)
            group.left = len(group.parts)
            self._begun += 1
            group.folders = [self._inputs / str(self._begun) / part.name for part in group.parts]
            for part, own in zip(group.parts, group.folders, strict=True):
                future = _submit(self._makers, _prepare, part, group.keys, self._job, own)
                self._pending[future] = group, part

    def _take(self, future: Future[Any], group: Group, what: Part | str, queue: list[Group]) -> bool:
        """Note a result; whether it was the group's last."""
        error = future.exception()
        if isinstance(error, InputError):
            raise error
        name = what.name if isinstance(what, Part) else f"{what} of {group.parts[0].name} and others"
        if error is not None:
            self.troubles.append(f"{name}: {type(error).__name__}: {error}".splitlines()[0])
        if isinstance(what, Part):
            if error is not None:
                place = group.parts.index(what)
                del group.parts[place], group.folders[place]
        elif error is None:
            self._times.append(future.result())
        group.left -= 1
        if group.left > 0:
            return False
        if isinstance(what, Part) and group.parts:
            self._fit(group, {key for later in queue for key in later.keys} | self._prepared_keys())
            return False
        for folder in group.folders:
            shutil.rmtree(folder)
        self._write_times()
        return True

    def _prepared_keys(self) -> set[str]:
        """Fits of groups that are being prepared."""
        return {key for group, what in self._pending.values() if isinstance(what, Part) for key in group.keys}

    def _fit(self, group: Group, later: set[str]) -> None:
        group.left = len(group.keys)
        for key in group.keys:
            home, parts = self._home(key), tuple(group.parts)
            future = _submit(home, _fit, parts, key, self._job, tuple(group.folders))
            self._pending[future] = group, key
            if key not in later:
                for fitter in self._fitters:
                    _submit(fitter, _release, key, self._job)

    def _home(self, key: str) -> Executor:
        """The process of a fit. Where rounds are recorded, a way stays where its recordings are."""
        if key not in self._homes or not self._recorded:
            self._homes[key] = self._fitters.pop(0)
            self._fitters.append(self._homes[key])
        return self._homes[key]

    def _write_times(self) -> None:
        if self._times:
            with atomic_path(Path(self._job.out) / "times.csv") as path, path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(self._times[0]))
                writer.writeheader()
                writer.writerows(self._times)


class _Here(Executor):
    """Does the work in this process, at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _submit(executor: Executor, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """A future also where the process is gone: what it should have done failed, and others go on."""
    try:
        return executor.submit(task, *arguments)
    except BrokenExecutor as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def _processes(number: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(number, mp_context=context, initializer=one_thread)


def one_thread() -> None:
    """Processes beside each other do not share out their work further."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


_BENCH: dict[tuple[str, str], Workbench] = {}
"""Of a job and device: body, tokenizer and fitters are made once a process."""


def _workbench(job: Job, device: str) -> Workbench:
    name = (repr(job), device)
    if name not in _BENCH:
        for other in [known for known in _BENCH if known[0] != name[0]]:
            del _BENCH[other]
        _BENCH[name] = Workbench(job.fit, choose_device(device), job.seed)
    return _BENCH[name]


def _prepare(part: Part, keys: Sequence[str], job: Job, folder: Path) -> None:
    """The inputs of one part, whose scene is made if it is missing."""
    root = job.scene(part)
    ensure_scene(part.scene, root, progress=False)
    bench = _workbench(job, "cpu")
    scene = read_scene(root, part.scene.keypoint_format)
    images = bench.read(scene, scene.names)
    prepare(images, variants(tuple(keys)), job.fit, folder)


def _fit(parts: Sequence[Part], key: str, job: Job, folders: Sequence[Path]) -> dict[str, Any]:
    """Fit prepared parts in one way; what it took."""
    began = time.perf_counter()
    bench = _workbench(job, job.device)
    images = [prepared(folder, key) for folder in folders]
    flat = [image for own in images for image in own]
    loaded = time.perf_counter()
    people = [(image.name, image.people) for image in flat]
    rows, seconds = bench.fit_inputs(FITS[key], [image.input for image in flat], people)
    # Rows come in the order of the images; names repeat from part to part.
    rest = iter(rows)
    for part, own in zip(parts, images, strict=True):
        write_rows(job.fits(part, key), list(islice(rest, sum(len(image.people) for image in own))), {})
    return {
        "first": parts[0].name,
        "fit": key,
        "people": len(rows),
        "load_s": round(loaded - began, 3),
        "fit_s": round(seconds, 3),
        "all_s": round(time.perf_counter() - began, 3),
        "ended": round(time.time(), 1),
    }


def _begin(job: Job) -> None:
    """Load what all fits need."""
    _workbench(job, job.device)


def _release(key: str, job: Job) -> None:
    """Let go of a fit's recordings, which hold memory of the device."""
    _workbench(job, job.device).fitters.pop(FITS[key], None)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
