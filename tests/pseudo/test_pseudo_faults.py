"""Processes killed while they work. Each run is the real command in a process of its own."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from depthfit.pseudo import PseudoConfig
from depthfit.pseudo.check import check
from depthfit.pseudo.part import read_index
from depthfit.pseudo.records import Chunk, ChunkRef
from depthfit.run.halving import DeviceError
from tests.pseudo.conftest import FAST

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
PEOPLE = 12


class Command:
    """``depthfit pseudo-gt`` in a process, with a chunk a person or two so that there is time to kill it."""

    def __init__(self, source: Path, out: Path, *more: str) -> None:
        self.out = out
        arguments = ["pseudo-gt", str(source), str(out), *FAST, "chunk=1", *more]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "depthfit.cli.main", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def receipts(self) -> list[dict[str, Any]]:
        path = self.out / "receipts.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for_receipts(self, count: int) -> list[dict[str, Any]]:
        self.wait_until(lambda: len(self.receipts()) >= count)
        return self.receipts()

    def wait_until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            assert self.process.poll() is None, f"it ended too soon:\n{self.process.communicate()[0]}"
            assert time.monotonic() < end
            time.sleep(0.02)

    def end(self) -> int:
        output, _ = self.process.communicate(timeout=PATIENCE)
        print(output)
        return self.process.returncode


def children(pid: int) -> Iterator[tuple[int, str]]:
    """Living processes below one, with their names."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(") ")
            except OSError:
                continue  # it ended while we looked
            if int(rest.split()[1]) == pid and rest[0] != "Z":
                yield int(folder.name), name
                yield from children(int(folder.name))


def start_node(*arguments: str) -> subprocess.Popen[bytes]:
    """A node of one core, once it runs."""
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "start", "--num-cpus=1", "--disable-usage-stats", "--block", *arguments]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert node.stdout is not None
    for line in node.stdout:
        if b"Ray runtime started" in line:
            return node
    raise AssertionError(f"no node: {node.wait()}")


def raylet_of(pid: int) -> int:
    """The raylet below a process."""
    (found,) = [child for child, name in children(pid) if name == "raylet"]
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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")
class TestLocal:
    def test_a_killed_run_goes_on_where_it_was(self, tars: Path, tmp_path: Path) -> None:
        command = Command(tars, tmp_path / "out")
        done = command.wait_for_receipts(4)
        command.process.send_signal(signal.SIGKILL)
        command.process.communicate()
        again = Command(tars, tmp_path / "out")
        assert again.end() == 0
        finished(tars, tmp_path / "out")
        chunks = [line["chunk"] for line in again.receipts()]
        assert len(chunks) == len(set(chunks)), "nothing that was written is fitted again"
        assert [line["chunk"] for line in done] == chunks[: len(done)]

    def test_a_second_run_on_the_same_output_is_refused(self, tars: Path, tmp_path: Path) -> None:
        first = Command(tars, tmp_path / "out")
        first.wait_until((tmp_path / "out" / "provenance.json").is_file)
        second = Command(tars, tmp_path / "out")
        output = second.process.communicate(timeout=PATIENCE)[0]
        assert second.process.returncode == 1
        assert f"in use by process {first.process.pid}" in output
        assert first.end() == 0
        finished(tars, tmp_path / "out")


ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="ray is not installed: pip install depthfit[ray]",
)


@pytest.fixture(scope="class")
def killed_driver(tars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """The output of a run whose driver was killed, and the processes that were below it."""
    command = Command(tars, tmp_path_factory.mktemp("driver") / "out", "engine=ray", "workers=1")
    command.wait_for_receipts(2)
    below = [pid for pid, _ in children(command.process.pid)]
    assert below
    command.process.send_signal(signal.SIGKILL)
    command.process.communicate()
    return command.out, below


@ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes through /proc")
class TestRay:
    def test_any_engine_goes_on_after_a_killed_driver(
        self, tars: Path, killed_driver: tuple[Path, list[int]]
    ) -> None:
        out, _ = killed_driver
        again = Command(tars, out)
        assert again.end() == 0
        finished(tars, out)

    def test_a_killed_worker_is_replaced(self, tars: Path, tmp_path: Path) -> None:
        command = Command(tars, tmp_path / "out", "engine=ray", "workers=2")
        (line, *_) = command.wait_for_receipts(1)
        victim = int(line["times"]["fit"][2].rpartition(":")[2])
        os.kill(victim, signal.SIGKILL)
        assert command.end() == 0
        summary = finished(tars, tmp_path / "out")
        assert summary["outcomes"]["failed"] == 0, "the chunk that died with it was done again"

    def test_a_process_whose_device_failed_is_replaced(self, tmp_path: Path) -> None:
        work = "from tests.pseudo.test_pseudo_faults import work_on_a_bad_device as work"
        code = f"import sys; {work}; work(sys.argv[1])"
        command = [sys.executable, "-c", code, str(tmp_path / "failed")]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
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
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for arguments in (("--head", port, "--include-dashboard=false"), (f"--address={address}",)):
                nodes.append(start_node(*arguments))
            command = Command(tars, tmp_path / "out", "engine=ray", "workers=2", f"address={address}")
            command.wait_for_receipts(1)
            os.kill(raylet_of(nodes[1].pid), signal.SIGKILL)
            assert command.end() == 0
            finished(tars, tmp_path / "out")
        finally:
            for node in reversed(nodes):
                node.terminate()
                node.communicate(timeout=PATIENCE)

    def test_a_killed_raylet_ends_the_run_and_the_next_one_finishes(self, tars: Path, tmp_path: Path) -> None:
        command = Command(tars, tmp_path / "out", "engine=ray", "workers=1")
        command.wait_for_receipts(2)
        os.kill(raylet_of(command.process.pid), signal.SIGKILL)
        assert command.end() != 0, "a run without its node does not end well"
        assert not (tmp_path / "out" / "summary.json").exists()
        again = Command(tars, tmp_path / "out")
        assert again.end() == 0
        finished(tars, tmp_path / "out")

    def test_a_killed_driver_takes_its_cluster_along(self, killed_driver: tuple[Path, list[int]]) -> None:
        # The last one, for Ray's agents look after their raylet once a minute.
        _, below = killed_driver
        end = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{pid}").exists() for pid in below):
            assert time.monotonic() < end, "the cluster outlives its driver"
            time.sleep(0.1)
