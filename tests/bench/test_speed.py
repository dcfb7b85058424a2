"""The clock adds up, batches are what they claim to be, and tables say what was measured."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from depthfit import kernels
from depthfit.bench import clock as clock_module
from depthfit.bench import speed, speed_fit, speed_race, speed_scenes
from depthfit.bench.clock import StageClock
from depthfit.bench.speed import SpeedConfig, run_speed
from depthfit.bench.speed_fit import OUT_OF_MEMORY, STAGES, WATCHED, Case, FitSpeed, measure_fit
from depthfit.bench.speed_plots import write_speed_plots
from depthfit.bench.speed_race import ENTRIES, Course, Race, draw_course, run_race
from depthfit.bench.speed_report import fit_table, race_table
from depthfit.bench.speed_rivals import Problem, Trace
from depthfit.bench.speed_scenes import SPACES, RepeatedFitter, repeat, speed_tokenizer
from depthfit.body.load import load_body
from depthfit.errors import DepthfitError, InputError
from depthfit.fit import Fitter, fitter
from depthfit.fit.stages import Scheduler
from depthfit.synth import SynthConfig
from depthfit.tokens.vqvae import CODE_DIM, NUM_TOKENS, OFFICIAL_WIDTH
from tests.fit.scenes import exact_config, exact_image


@pytest.fixture(scope="module")
def stages() -> Scheduler:
    """Three images; the first has two people."""
    body = load_body("open")
    config = exact_config(pose_sigma=0.1)
    config.depth.samples, config.solver.grid = 40, 32
    images = [exact_image(body, seed)[0] for seed in (1, 2, 3)]
    images[0].people.append(images[1].people[0])
    with torch.no_grad():
        return Fitter(body, None, config).scheduler(images)


def test_inner_stages_are_taken_off_outer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    def outer() -> None:
        work(2.0)
        module.inner()
        module.inner()

    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=lambda: now))
    clock = StageClock(torch.device("cpu"))
    module = SimpleNamespace(inner=lambda: work(4.0), outer=outer)
    inner = module.inner
    with clock.watching([(module, "inner", "inner"), (module, "outer", "outer")]):
        module.outer()
        work(16.0)
    assert clock.seconds == {"inner": 8.0, "outer": 2.0}
    assert (module.inner, module.outer) == (inner, outer)


def test_functions_come_back_also_after_an_error() -> None:
    def fail() -> None:
        raise RuntimeError("as it should")

    module, clock = SimpleNamespace(fail=fail), StageClock(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="as it should"), clock.watching([(module, "fail", "stage")]):
        module.fail()
    assert module.fail is fail
    assert set(clock.seconds) == {"stage"}


def test_a_repeated_batch_holds_the_same_images_over_and_over(stages: Scheduler) -> None:
    again = repeat(stages, 5)
    assert again.batch.num_images == 5
    assert again.batch.group.tolist() == [0, 0, 1, 2, 3, 3, 4]
    ours, theirs = draw_course(stages).began, draw_course(again).began
    assert len(set(ours.tolist())) == 3
    assert torch.allclose(theirs, ours[[0, 1, 2, 0, 1]], rtol=1e-4)


def test_large_batches_are_taken_in_the_parts_of_a_fit(
    stages: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three people at most: the two of the first image and the next one's; two single ones before a pair."""
    monkeypatch.setattr(fitter, "MOST_PEOPLE", 3)
    engine = RepeatedFitter(stages.body, None, stages.config)
    inputs = [SimpleNamespace(people=[0] * n) for n in (2, 1, 1)]
    engine.load(stages, inputs, 8)  # type: ignore[arg-type]
    parts = [part.batch for part in engine.parts]
    assert [part.group.tolist() for part in parts] == [[0, 0, 1], [0, 1, 1], [0, 1], [0, 0, 1]]
    people = torch.cat([part.targets.xy for part in parts])
    one = stages.batch.targets.xy
    assert torch.equal(people, torch.cat([one, one, one[:3]]))
    assert engine.parts[0] is engine.parts[3]


def test_the_full_size_tokenizer_is_the_shipped_function_at_full_size() -> None:
    small, wide = speed_tokenizer(SPACES["tokens-open"]), speed_tokenizer(SPACES["tokens-full"])
    assert wide.width == OFFICIAL_WIDTH > small.width
    z = torch.randn(2, NUM_TOKENS, CODE_DIM, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(wide.decode(z), small.decode(z), atol=1e-5)
    pose = small.decode(z)
    assert torch.allclose(wide.encode(pose), small.encode(pose), atol=1e-4)
    weights = torch.cat([p.flatten() for p in wide.decoder.parameters()])
    assert float((weights == 0).float().mean()) < 0.3


def _hand_made(monkeypatch: pytest.MonkeyPatch, costs: list[float]) -> Course:
    """A course, with a solver on it that notes these costs, relative to LM's last, at 1, 2, ... seconds."""

    def run(problem: Problem, trace: Trace) -> None:
        for part in costs:
            trace.add(target * part)

    target = torch.tensor([100.0, 300.0])
    entry = speed_race.Entry("hand-made", run, lambda problem, trace: None)
    monkeypatch.setitem(ENTRIES, "hand-made", entry)
    monkeypatch.setattr(Trace, "seconds", lambda self: [1.0 + k for k in range(len(self.costs))])
    fit = SimpleNamespace(center=torch.zeros(2, 2), group=torch.arange(2))
    problem = Problem(fit, None)  # type: ignore[arg-type]
    return Course(problem, torch.tensor([900.0, 900.0]), target)


def test_times_are_to_the_first_cost_that_is_near_or_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    course = _hand_made(monkeypatch, [2.0, 1.005, 1.3, 1.00005, 1.0])
    race = run_race(course, "hand-made", 3, 60.0)
    assert (race.near, race.equal, race.seconds, race.steps) == (2.0, 4.0, 5.0, 5)
    assert (race.excess, race.share) == (0.0, 1.0)
    assert race.curve[0] == (0.0, pytest.approx(900 / 200 - 1))
    assert race.curve[-1] == (5.0, 0.0)


def test_a_solver_that_never_arrives_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    race = run_race(_hand_made(monkeypatch, [2.0, 1.2, 1.3]), "hand-made", 1, 60.0)
    assert (race.near, race.equal, race.share) == (None, None, 0.0)
    assert race.excess == pytest.approx(0.2)
    own = Race("lm", 2, equal=0.5, seconds=1.0)
    (row,) = [line for line in race_table([own, race]).splitlines() if "hand-made" in line]
    cells = [cell.strip() for cell in row.split("|")]
    # Three seconds without arriving: more than six times LM's half second.
    assert cells[6:10] == ["never", "never", "> 6", "> 6"]


def test_times_a_person_are_by_the_largest_batch() -> None:
    races = [
        Race("lm", 1, equal=0.1, seconds=0.1),
        Race("adam", 1, equal=5.0, seconds=5.0),
        Race("lm", 100, equal=0.2, seconds=0.2),
    ]
    row = race_table(races).splitlines()[3]
    assert [cell.strip() for cell in row.split("|")][8:10] == ["50", "2,500"]


def test_what_does_not_fit_into_memory_has_a_row(stages: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(engine: object) -> None:
        raise torch.cuda.OutOfMemoryError("as it should")

    monkeypatch.setattr(speed_fit, "timed_fit", fail)
    engine = RepeatedFitter(stages.body, None, stages.config)
    inputs = [SimpleNamespace(people=[0] * n) for n in (2, 1, 1)]
    found = measure_fit(engine, stages, inputs, 2, 1, 60.0, Case("rotations"))  # type: ignore[arg-type]
    assert (found.failed, found.people) == (OUT_OF_MEMORY, 3)
    assert fit_table([found]).splitlines()[-1].split("|")[3].strip() == OUT_OF_MEMORY


def test_times_stand_where_only_the_split_run_is_out_of_memory(
    stages: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU that run comes last, and without recordings."""

    def fail(*args: object) -> None:
        raise torch.cuda.OutOfMemoryError("as it should")

    monkeypatch.setattr(speed_fit, "timed_fit", lambda engine: (0.5, torch.tensor([3, 3])))
    monkeypatch.setattr(speed_fit, "_split", fail)
    engine = SimpleNamespace(device=SimpleNamespace(type="like a GPU"), parts=[stages])
    out = FitSpeed(Case("rotations"), 3, 4)
    speed_fit._measure(out, engine, 2, 60.0)  # type: ignore[arg-type]
    assert (out.seconds, out.steps, out.shares, out.failed) == ([0.5, 0.5], 3.0, {}, "")
    row = fit_table([out]).splitlines()[-1]
    assert row.split("|")[3].strip() == "8"
    assert "%" not in row


def test_unknown_spaces_and_solvers_are_errors(tmp_path: Path) -> None:
    for setting in ("spaces", "solvers"):
        with pytest.raises(InputError, match=setting):
            run_speed(SpeedConfig(out=str(tmp_path), **{setting: ["nothing"]}))
    assert not list(tmp_path.iterdir())


def test_rows_are_told_apart() -> None:
    cases = [Case("rotations"), Case("rotations", depth=False), Case("rotations", mixed=True)]
    cases += [Case("rotations", plain=True), Case("tokens-full")]
    assert len({case.label for case in cases}) == len(cases)


def test_plain_torch_uses_no_kernel_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tensor that looks like one on a GPU, and Triton as if it were there."""
    monkeypatch.setattr(kernels, "_has_triton", lambda: True)
    like = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    seen = []

    def fail() -> None:
        seen.append(kernels.use_triton(like))  # type: ignore[arg-type]
        raise RuntimeError("as it should")

    with torch.no_grad():
        assert not kernels.use_triton(like)  # type: ignore[arg-type]
    with torch.no_grad(), kernels.triton_kernels():
        assert kernels.use_triton(like)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="as it should"), kernels.plain_torch():
            fail()
        assert kernels.use_triton(like)  # type: ignore[arg-type]
    assert seen == [False]


def test_kernels_without_triton_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_has_triton", lambda: False)
    with pytest.raises(DepthfitError, match=r"Triton.*solver\.kernels=false"), kernels.triton_kernels():
        pass


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    shares = dict.fromkeys(STAGES, 1 / len(STAGES))
    fits = [FitSpeed(Case("rotations"), n, n, [0.1], 1.0, 40, 0.1, shares) for n in (1, 8)]
    fits.append(FitSpeed(Case("rotations"), 64, 64, [0.1], 1.0, 40, 0.1))
    fits.append(FitSpeed(Case("tokens-full"), 64, 64, failed=OUT_OF_MEMORY))
    races = [Race("lm", 1, equal=0.1, curve=[(0.0, 1.0), (0.1, 0.0)]), Race("adam", 1, failed=OUT_OF_MEMORY)]
    assert [path.name for path in write_speed_plots(tmp_path, fits, races, "here")] == [
        "speed_fits.png",
        "speed_solvers.png",
    ]
    assert write_speed_plots(tmp_path, fits[3:], [], "here") == []


def test_a_run_writes_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "QUICK_IMAGES", 1)
    config = SpeedConfig(out=str(tmp_path), quick=True, depth=[True], solvers=["lm"])
    config.batches = config.race_batches = [1]
    config.fit.solver.rounds, config.fit.solver.steps, config.fit.solver.grid = 1, 1, 32
    config.fit.solver.polish = 0
    config.fit.solver.hypotheses, config.fit.depth.samples = False, 50
    # Its scenes are small ones here.
    monkeypatch.setattr(speed_scenes, "SynthConfig", partial(SynthConfig, width=320, height=240))
    before = [getattr(owner, name) for owner, name, _ in WATCHED]
    table = run_speed(config)
    figures = json.loads((tmp_path / "speed.json").read_text())
    (fit,), (race,) = figures["fits"], figures["races"]
    assert all(fit["shares"][stage] > 0 for stage in STAGES)
    assert sum(fit["shares"].values()) == pytest.approx(1.0)
    assert fit["people"] == race["people"] == 1
    assert race["equal"] is not None
    assert all(cost > 0 for cost in figures["costs"].values())
    assert (tmp_path / "speed.md").read_text() == table + "\n"
    assert (tmp_path / "speed_fits.png").is_file()
    assert [getattr(owner, name) for owner, name, _ in WATCHED] == before
