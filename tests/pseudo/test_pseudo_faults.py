"""Processes killed while they work. Each run is the real command in a process of its own.

Whatever is killed belongs to a run that has stopped itself at a known chunk (``held_run``): it cannot have
ended before, however fast the machine is, and nothing here waits for less than the whole test may take.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from depthfit.pseudo import PseudoConfig
from depthfit.pseudo.check import check
from depthfit.pseudo.part import read_index
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.run.halving import DeviceError
from tests.pseudo.conftest import FAST

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""s until a cluster without a driver has to be gone; Ray's agents look after it once a minute."""
PEOPLE = 12
CHUNKS = 6
"""Of two people each: a chunk is one image at least."""


class Process(NamedTuple):
    """A process; ``start`` tells it from a later one of the same number."""

    pid: int
    parent: int
    name: str
    state: str
    start: int


def process(pid: int) -> Process | None:
    """A process as it is now; none if it has ended."""
    try:
        number, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(" (")
    except OSError:
        return None
    name, _, fields = rest.rpartition(") ")
    state, parent, *more = fields.split()
    return None if state in "ZX" else Process(int(number), int(parent), name, state, int(more[17]))


def below(pid: int) -> list[Process]:
    """Living processes below one, with those below them."""
    numbers = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    everyone = [found for found in map(process, numbers) if found is not None]
    own, todo = [], [pid]
    while todo:
        parent = todo.pop()
        children = [p for p in everyone if p.parent == parent]
        own += children
        todo += [p.pid for p in children]
    return own


def lives(before: Process) -> bool:
    """Whether a process that was seen has not ended."""
    now = process(before.pid)
    return now is not None and now.start == before.start


class Command:
    """``depthfit pseudo-gt`` in a process, with an image a chunk; what is left of it is killed at the end.

    Args:
        source: The labels; out: the output folder; more: settings.
        hold: Chunks after which the process stops itself; 0 = never.
    """

    def __init__(self, source: Path, out: Path, *more: str, hold: int = 0) -> None:
        self.out = out
        program = ["tests.pseudo.held_run", str(hold)] if hold else ["depthfit.cli.main"]
        arguments = ["pseudo-gt", str(source), str(out), *FAST, "chunk=1", *more]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        # A file, for a pipe can be full, and then the command waits.
        self._said = (out.parent / f"{out.name}_{time.monotonic_ns()}.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *program, *arguments],
            env=environment,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        self.pid = self.process.pid

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            for child in below(self.pid):
                os.kill(child.pid, signal.SIGKILL)
        self.kill()
        self._said.close()

    def receipts(self) -> list[dict[str, Any]]:
        """Of the chunks that are noted, also those of earlier runs."""
        return [json.loads(line) for line in (self.out / "receipts.jsonl").read_text().splitlines()]

    def wait_until_held(self) -> list[dict[str, Any]]:
        """Wait for the process to stop itself; returns the receipts by then."""
        # The stop is left to be waited for again, as an end would have to be.
        found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert found is not None
        assert found.si_code == os.CLD_STOPPED, f"it ended too soon:\n{self.output()}"
        assert not (self.out / "summary.json").exists(), "it is still at work"
        return self.receipts()

    def go_on(self) -> None:
        """Let the stopped process go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process, alone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Wait for its end; returns its status."""
        status = self.process.wait()
        print(self.output())
        return status

    def output(self) -> str:
        """All that it has said."""
        return Path(self._said.name).read_text()


@contextmanager
def running_node(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of one core that runs."""
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "start", "--num-cpus=1", "--disable-usage-stats", "--block", *arguments]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert node.stdout is not None
        assert any(b"Ray runtime started" in line for line in node.stdout), "no node"
        yield node
    finally:
        node.terminate()
        node.communicate()


def raylet_of(pid: int) -> int:
    """The raylet below a process."""
    (found,) = [child.pid for child in below(pid) if child.name == "raylet"]
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class BadDevice:
    """A stage whose first process finds its device broken; ``job`` is a file that remembers it."""

    name = "fit"

    def __init__(self, job: str) -> None:
        self.mark = Path(job)

    def __call__(self, chunk: Chunk) -> Chunk:
        if not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            raise DeviceError("the device failed")
        chunk.bytes_in = os.getpid()
        return chunk


def work_on_a_bad_device(mark: str) -> None:
    """Put a chunk through a pool of one process, on a cluster of its own, and print what became of it."""
    import ray

    from depthfit.pseudo.ray_pools import Actors

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    pool = Actors(ray, BadDevice, ray.put(mark), PseudoConfig(workers=1))
    ref = ChunkRef("a", 0)
    pool.queue.append((ref, ray.put(pickle.dumps(Chunk(ref)))))
    lost: list[ChunkRef] = []
    passed: list[tuple[ChunkRef, Any]] = []
    while not passed:
        pool.start()
        passed, again = pool.finished()
        pool.queue.extend((ref, ray.put(pickle.dumps(Chunk(ref)))) for ref in again)
        lost += again
        time.sleep(0.02)
    chunk = pickle.loads(ray.get(passed[0][1]))
    another = chunk.bytes_in != int(Path(mark).read_text())
    print(f"lost {len(lost)}, passed {len(passed)}, another process {another}")
    ray.shutdown()


def finished(source: Path, out: Path) -> dict[str, Any]:
    """The summary of a run that is whole: nobody lost, nobody doubled."""
    assert check(str(out), str(source)) == []
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert summary["people"] == sum(summary["outcomes"].values()) == PEOPLE
    people = [(r["key"], r["person"]) for p in (out / "index").glob("*") for r in read_index(p)]
    assert len(people) == len(set(people)) == PEOPLE
    return summary


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")


@needs_proc
class TestLocal:
    def test_a_killed_run_goes_on_where_it_was(self, tars: Path, tmp_path: Path) -> None:
        with Command(tars, tmp_path / "out", hold=4) as command:
            done = command.wait_until_held()
            assert len(done) == 4
            command.kill()
        with Command(tars, tmp_path / "out") as again:
            assert again.end() == 0
            chunks = [line["chunk"] for line in again.receipts()]
        finished(tars, tmp_path / "out")
        assert len(chunks) == len(set(chunks)) == CHUNKS, "nothing that was written is fitted again"
        assert [line["chunk"] for line in done] == chunks[: len(done)]

    def test_a_second_run_on_the_same_output_is_refused(self, tars: Path, tmp_path: Path) -> None:
        with Command(tars, tmp_path / "out", hold=1) as first:
            first.wait_until_held()
            with Command(tars, tmp_path / "out") as second:
                assert second.end() == 1
                assert f"in use by process {first.pid}" in second.output()
            first.go_on()
            assert first.end() == 0
        finished(tars, tmp_path / "out")


ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed: pip install depthfit[ray]",
)


@pytest.fixture(scope="class")
def killed_driver(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Process]]:
    """The output of a run whose driver was killed, and the processes that were below it."""
    out = tmp_path_factory.mktemp("driver") / "out"
    with Command(tars, out, "engine=ray", "workers=1", hold=2) as command:
        command.wait_until_held()
        cluster = below(command.pid)
        assert any(p.name == "raylet" for p in cluster)
        command.kill()
    return out, cluster


@pytest.fixture(scope="module", autouse=True)
def _ray_s_processes_are_not_nice() -> Iterator[None]:
    """By default all that runs beside them on a busy machine goes first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        yield


@ray
@needs_proc
class TestRay:
    """With one process that fits, the driver hands out three chunks at a time: when it has noted the first,
    at least three are still to be handed out."""

    def test_any_engine_goes_on_after_a_killed_driver(
        self, tars: Path, killed_driver: tuple[Path, list[Process]]
    ) -> None:
        out, _ = killed_driver
        with Command(tars, out) as again:
            assert again.end() == 0
        finished(tars, out)

    def test_a_killed_worker_is_replaced(self, tars: Path, tmp_path: Path) -> None:
        with Command(tars, tmp_path / "out", "engine=ray", "workers=1", hold=1) as command:
            (line,) = command.wait_until_held()
            victim = line["times"]["fit"][2]
            os.kill(int(victim.rpartition(":")[2]), signal.SIGKILL)
            command.go_on()
            assert command.end() == 0
            fitted_by = {line["times"]["fit"][2] for line in command.receipts()}
        assert victim in fitted_by
        assert len(fitted_by) == 2, "another one took its place"
        summary = finished(tars, tmp_path / "out")
        assert summary["outcomes"]["failed"] == 0, "the chunk that died with it was done again"

    def test_a_process_whose_device_failed_is_replaced(self, tmp_path: Path) -> None:
        work = "from tests.pseudo.test_pseudo_faults import work_on_a_bad_device as work"
        code = f"import sys; {work}; work(sys.argv[1])"
        command = [sys.executable, "-c", code, str(tmp_path / "failed")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout == "lost 1, passed 1, another process True\n", done.stderr

    @pytest.mark.slow
    def test_a_lost_node_is_done_without(
        self, tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Newer versions of Ray ask for a token between nodes.
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        address = f"{socket.gethostbyname(socket.gethostname())}:{free_port()}"
        port = f"--port={address.rpartition(':')[2]}"
        more = ("engine=ray", "workers=2", f"address={address}")
        with (
            running_node("--head", port, "--include-dashboard=false"),
            running_node(f"--address={address}") as other,
            Command(tars, tmp_path / "out", *more, hold=1) as command,
        ):
            command.wait_until_held()
            os.kill(raylet_of(other.pid), signal.SIGKILL)
            command.go_on()
            assert command.end() == 0
        finished(tars, tmp_path / "out")

    def test_a_killed_raylet_ends_the_run_and_the_next_one_finishes(self, tars: Path, tmp_path: Path) -> None:
        with Command(tars, tmp_path / "out", "engine=ray", "workers=1", hold=1) as command:
            command.wait_until_held()
            os.kill(raylet_of(command.pid), signal.SIGKILL)
            command.go_on()
            assert command.end() != 0, "a run without its node does not end well"
        assert not (tmp_path / "out" / "summary.json").exists()
        with Command(tars, tmp_path / "out") as again:
            assert again.end() == 0
        finished(tars, tmp_path / "out")

    def test_a_killed_driver_takes_its_cluster_along(self, killed_driver: tuple[Path, list[Process]]) -> None:
        # The last one, for Ray's agents look after their raylet once a minute.
        _, cluster = killed_driver
        end = time.monotonic() + PATIENCE
        while left := [p for p in cluster if lives(p)]:
            assert time.monotonic() < end, f"the cluster outlives its driver: {left}"
            time.sleep(0.1)
