"""The benchmark's people, its rival fits, and the floor of the distance."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from depthfit import __version__, so3
from depthfit.bench import split_bench
from depthfit.bench.floor import MEDIAN_OF_NORMAL, distance_floor, shape_mean
from depthfit.bench.pool import Job
from depthfit.bench.split_bench import SplitsConfig, phases, plan_of, run_splits
from depthfit.bench.split_scores import seen_error
from depthfit.bench.splits import LEVELS, SPLITS, SWEEPS, TOTAL, scaled, split_parts, sweep_parts
from depthfit.bench.variants import CONFIGS, FITS, TABLES, variants
from depthfit.body.load import load_body
from depthfit.errors import InputError
from depthfit.evaluation.score import FIT_FIELDS, load_table
from depthfit.fit.config import FitConfig
from depthfit.joints import JOINT_INDEX
from depthfit.lock import lock
from depthfit.synth import SynthConfig
from depthfit.synth.demanding import demands
from depthfit.synth.generate import make_image, open_studio


def test_the_whole_benchmark_has_1024_people_and_no_image_twice() -> None:
    parts = split_parts(list(SPLITS), TOTAL, 1, "one")
    assert sum(part.people for part in parts) == TOTAL == 1024
    images = [(p.scene.seed, p.scene.first + i) for p in parts for i in range(p.scene.images)]
    assert len(set(images)) == len(images)
    assert {p.group for p in parts} == set(SPLITS)


def test_fewer_people_are_some_of_all_people() -> None:
    everybody = {part.name for part in split_parts(list(SPLITS), TOTAL, 1, "one")}
    some = split_parts(list(SPLITS), 256, 1, "one")
    assert sum(part.people for part in some) == 256
    assert {part.name for part in some} <= everybody


def test_levels_change_the_evidence_and_not_the_prediction() -> None:
    usual, double = (split_parts(["far"], 8, 1, level)[0].scene.noise for level in ("one", "double"))
    assert double.prediction == usual.prediction
    for f in dataclasses.fields(usual):
        if f.name != "prediction":
            assert getattr(double, f.name) == 2 * getattr(usual, f.name), f.name
    assert scaled(usual, LEVELS["one"]) == usual


def test_sweeps_share_what_is_usual_and_change_one_thing() -> None:
    found = sweep_parts(list(SWEEPS), 40, 1)
    usual = {found[name][s.usual][0].name for name, s in SWEEPS.items() if s.usual is not None}
    assert len(usual) == 1
    scene = found["focal"][0.22][0].scene
    for name, values in found.items():
        for value, parts in values.items():
            assert sum(part.people for part in parts) == 40
            if name not in ("distance", "prediction") and value != SWEEPS[name].usual:
                mine = dataclasses.asdict(parts[0].scene)
                theirs = dataclasses.asdict(scene)
                changed = [k for k in mine["noise"] if mine["noise"][k] != theirs["noise"][k]]
                assert len(changed) == 1, (name, value)


def test_a_worse_prediction_is_worse_in_all_that_it_says() -> None:
    usual = next(iter(sweep_parts(["prediction"], 1, 1)["prediction"][0.08])).scene.noise.prediction
    for value, (part,) in sweep_parts(["prediction"], 1, 1)["prediction"].items():
        found = part.scene.noise.prediction
        assert found.pose_rad == pytest.approx(value)
        for name in ("root_rad", "betas"):
            assert getattr(found, name) == pytest.approx(getattr(usual, name) * value / 0.08), (name, value)


@pytest.mark.parametrize("key", list(FITS))
def test_every_fit_has_settings_of_its_own(key: str) -> None:
    base = FitConfig()
    settings = FITS[key].settings(base)
    assert (settings == base) == (key == "joint")


def test_rivals_take_what_their_names_say() -> None:
    fits = {key: FITS[key].settings(FitConfig()) for key in FITS}
    for key in ("smplify", "camsmplify", "free_focal", "true_focal", "default_focal"):
        assert not fits[key].depth.use, key
        assert fits[key].contour.source == "none", key
        assert fits[key].camera.freeze_focal == (key != "free_focal"), key
    assert fits["smplify"].camera.source == "regressor"
    assert fits["smplify_tals_code"].keypoints.tals == "code"
    assert fits["smplify_tals_code"].pose == fits["smplify"].pose
    assert fits["tokens"].pose.space == "tokens"
    assert not fits["own_cameras"].camera.shared


def test_a_users_settings_stay_under_a_fits_own() -> None:
    base = FitConfig()
    base.keypoints.noise_factor, base.depth.use = 0.7, True
    settings = FITS["smplify"].settings(base)
    assert settings.keypoints.noise_factor == 0.7
    assert not settings.depth.use


def test_every_configuration_file_is_in_a_table() -> None:
    used = {name for fit in FITS.values() for name in fit.configs}
    files = {str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml")}
    assert files - used == {"keypoints_only", "known_camera", "smpl"}, "neither a fit nor a user's example"
    assert {key for keys in TABLES.values() for key in keys} <= set(FITS)


def test_an_unknown_fit_split_or_sweep_is_named() -> None:
    with pytest.raises(InputError, match="smplifyx"):
        variants(["smplifyx"])
    with pytest.raises(InputError, match="closer"):
        split_parts(["closer"], 8, 1, "one")
    with pytest.raises(InputError, match="fit_workers"):
        run_splits(SplitsConfig(fit_workers=0))
    with pytest.raises(InputError, match="pitch"):
        sweep_parts(["pitch"], 8, 1)


def test_parts_are_fitted_once_in_all_ways_and_what_matters_most_comes_first() -> None:
    config = SplitsConfig(splits=["everyday", "far"], sweeps=["depth_scale", "focal"], sweep_people=8)
    work = phases(plan_of(config))
    splits, ablations, levels, sweeps = ([(p.level, k) for p, keys in w for k in keys] for w in work)
    asked = [(part.name, key) for phase in work for part, keys in phase for key in keys]
    assert len(set(asked)) == len(asked)
    assert {key for _, key in splits} == set(config.fits)
    # What the splits have had already is not asked again.
    assert {key for _, key in ablations} == set(config.ablations) - set(config.fits)
    assert {level for level, _ in levels} == {"half", "double"}
    assert len(sweeps) == len(config.sweep_fits) * (5 + 4 - 1)


def test_floor_is_the_error_of_the_best_guess() -> None:
    """A person is k times as large as the mean with log sd 0.04; a map measures k with log sd 0.1."""
    rng = np.random.default_rng(0)
    size = rng.normal(0, 0.04, 200_000)
    measured = size + rng.normal(0, 0.1, 200_000)
    best = measured * (1 / 0.1**2) / (1 / 0.1**2 + 1 / 0.04**2)
    floor = distance_floor(0.04, 0.1)
    assert np.std(best - size) == pytest.approx(floor, rel=0.01)
    assert np.median(np.abs(best - size)) == pytest.approx(MEDIAN_OF_NORMAL * floor, rel=0.01)
    assert distance_floor(0.04, 0.0) == 0


def test_joints_outside_the_image_are_not_seen() -> None:
    joints = np.tile(np.array([0.0, 0.0, 2.0]), (1, 3, 1))
    joints[0, 1], joints[0, 2] = [0.5, 0.0, 2.0], [3.0, 0.0, 2.0]
    K = np.array(
        [[[100.0, 0, 99.5], [0, 100.0, 99.5], [0, 0, 1]]]
    )  # 200 px: the third joint lies at 249.5 px
    truth = {"imgname": np.array(["a.png"]), "person": np.array([1]), "joints": joints, "K": K}
    wrong = joints + np.array([[0, 0, 0], [0.03, 0, 0], [0.9, 0, 0]])
    fits = {"imgname": np.array(["a.png"]), "person": np.array([1]), "joints": wrong}
    assert seen_error(fits, truth, "") == pytest.approx(15.0)


def test_shape_mean_is_the_regression_of_truth_on_prediction() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=100_000)
    predicted = truth + 0.6 * rng.normal(size=100_000)
    slope = (truth * predicted).mean() / (predicted**2).mean()
    assert shape_mean(np.ones(1), 0.6)[0] == pytest.approx(slope, rel=0.02)


def test_demands_know_a_handstand_a_turned_trunk_and_a_reaching_arm() -> None:
    body = load_body()
    level = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    up = level[:, 1]
    rest = torch.eye(3).repeat(23, 1, 1)
    assert demands(body, level, rest, up) == set()
    over = so3.exp(torch.tensor([0.0, 0.0, 3.0]))
    assert demands(body, level @ over, rest, up) == {"inverted"}
    turned = rest.clone()
    for name in ("spine1", "spine2", "spine3"):
        turned[JOINT_INDEX[name] - 1] = so3.exp(torch.tensor([0.0, 0.25, 0.0]))
    assert demands(body, level, turned, up) == {"twisted"}
    reaching = rest.clone()
    # The left arm hangs along +x in rest; a quarter turn about -y points it to +z of the body, at the camera.
    reaching[JOINT_INDEX["left_shoulder"] - 1] = so3.exp(torch.tensor([0.0, -1.5, 0.0]))
    assert demands(body, level, reaching, up) == {"foreshortened"}


@pytest.mark.parametrize("name", list(SPLITS))
def test_splits_are_what_they_are_called(name: str) -> None:
    part = split_parts([name], 8, 100, "one")[0]
    studio = open_studio(dataclasses.replace(part.scene, token_probs=False))
    image = make_image(dataclasses.replace(part.scene, token_probs=False), studio, part.scene.first)
    width, height = image.world.camera.size
    for placed in image.world.people:
        distance = float(placed.transl[2])
        pixels = placed.joints @ image.world.camera.K.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        inside = ((pixels >= 0) & (pixels <= torch.tensor([width - 1, height - 1]))).all(-1).float().mean()
        if name == "everyday":
            assert placed.person.kind == "everyday"
        if name == "hard":
            assert placed.person.kind in ("inverted", "twisted", "foreshortened")
        if name == "close":
            assert 0.8 <= distance <= 1.5
        if name == "far":
            assert 6 <= distance <= 12
        if name == "truncated":
            assert 0.4 <= float(inside) <= 0.8
    assert len(image.world.people) == part.people // part.scene.images


def _small(scene: SynthConfig) -> SynthConfig:
    return dataclasses.replace(scene, width=320, height=240, token_probs=False)


def test_the_benchmark_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SPLITS:
        monkeypatch.setitem(SPLITS, name, dataclasses.replace(SPLITS[name], scene=_small(SPLITS[name].scene)))
    config = SplitsConfig(
        str(tmp_path), people=4, splits=["everyday", "far"], fits=["identity", "free_focal"]
    )
    # Half and double noise have images of the same names, and are fitted in one batch.
    config.levels, config.sweeps, config.ablations = ["half", "double"], [], ["joint"]
    config.level_people, config.level_fits = 4, ["free_focal"]
    config.ablation_people, config.device = 4, "cpu"
    config.fit.solver.rounds, config.fit.solver.hypotheses, config.fit.solver.grid = 1, False, 32
    config.fit.solver.polish = 0
    text = run_splits(config)
    job = Job(str(tmp_path / "seed_1"), config.fit, "cpu", 1)
    assert job.scene(split_parts(["far"], 4, 1, "one")[0]).is_dir()
    rows = [job.fits(split_parts(["far"], 4, 1, level)[0], "free_focal") for level in LEVELS]
    assert len({float(load_table(path, FIT_FIELDS)["focal"][0]) for path in rows}) == 3
    assert "2D only, free focal" in text
    assert "everyday (1) | far (1) | all (2)" in text
    # What is done is not done again, and what was done otherwise is not mixed in.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    people = list(csv.DictReader((tmp_path / "seed_1" / "people.csv").read_text().splitlines()))
    mean = np.mean([float(r["mpjpe_mm"]) for r in people if (r["level"], r["fit"]) == ("one", "free_focal")])
    content = json.loads((tmp_path / "seed_1" / "splits.json").read_text())
    assert mean == pytest.approx(content["fits"]["free_focal"]["all"]["mpjpe"], rel=1e-3)
    assert len(people) == 2 * 2 + 2 * 2 + 2
    # Every row says what it was made with.
    figures = list(csv.DictReader((tmp_path / "seed_1" / "splits.csv").read_text().splitlines()))
    (cell,) = [r for r in figures if (r["table"], r["fit"], r["of"]) == ("fits", "free_focal", "all")]
    assert float(cell["mpjpe"]) == content["fits"]["free_focal"]["all"]["mpjpe"]
    for stamped in (*people, *figures, *content["stamps"].values()):
        assert (stamped["fitted_with"], stamped["protocol"]) == (__version__, "smpl24")
        assert stamped["body"] == "open-neutral"
        assert stamped["config"].startswith("settings.yaml sha256:")
    page = (tmp_path / "seed_1" / "worst" / "free_focal.html").read_text()
    assert page.count("<figcaption>everyday 10000 #1:") >= 1
    assert run_splits(config) == text
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == before
    config.fit.solver.rounds = 2
    with pytest.raises(InputError, match="other settings"):
        run_splits(config)
    config.fit.solver.rounds = 1
    far = job.scene(split_parts(["far"], 4, 1, "one")[0])
    kept = (far / "synth.yaml").read_text()
    (far / "synth.yaml").write_text(kept.replace("0.1.0", "0.0.9"))
    rows[1].unlink()
    with pytest.raises(InputError, match="another version"):
        run_splits(config)
    (far / "synth.yaml").write_text(kept)
    with lock(Path(job.out)), pytest.raises(InputError, match="in use by process"):
        run_splits(config)
    # Another comment in a configuration file is no other configuration.
    configs = shutil.copytree(CONFIGS, tmp_path / "configs")
    changed = next(configs.rglob("*.yaml"))
    changed.write_text(f"# A word on it.\n{changed.read_text()}")
    monkeypatch.setattr(split_bench, "CONFIGS", configs)
    assert run_splits(config) == text
    changed.write_text(f"{changed.read_text()}\nseed: 7\n")
    with pytest.raises(InputError, match="other settings"):
        run_splits(config)
