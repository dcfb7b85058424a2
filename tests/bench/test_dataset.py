"""``depthfit eval 3dpw`` and ``depthfit eval FITS TRUTH`` from files to tables, on two tiny sequences."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depthfit import __version__
from depthfit.bench.dataset import DatasetConfig, _references, run_dataset, stack
from depthfit.bench.scoring import EvalConfig, run_eval
from depthfit.body.export import export_smplx
from depthfit.camera import regressor_focal
from depthfit.cli.main import main
from depthfit.datasets.labels import true_keypoints, truth_columns
from depthfit.datasets.threedpw import ThreeDPW
from depthfit.errors import InputError
from depthfit.evaluation.people import BodySet, pose_body
from depthfit.evidence.predictions import Predictions, write_predictions
from depthfit.joints import COCO17
from depthfit.run import load_config
from tests.bodies import random_body
from tests.datasets import formats
from tests.datasets.conftest import smpl_folder  # noqa: F401
from tests.run.conftest import FAST

FRAMES, SEQUENCES = 2, ("hall_00", "street_01")
BEND = Rotation.from_rotvec([0.4, 0, 0])


@pytest.fixture(scope="module")
def bodies(smpl_folder: Path) -> BodySet:  # noqa: F811
    return BodySet(smpl_folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory, bodies) -> Path:
    """3DPW's layout: two people in the first sequence, one in the second."""
    root = tmp_path_factory.mktemp("data") / "3DPW"
    for seed, name in enumerate(SEQUENCES):
        people = [formats.motion(7, FRAMES, "male"), formats.motion(8, FRAMES, "female", (0.9, 0, 0.2))]
        people = people[: 2 - seed]
        cameras = np.tile(formats.extrinsics(9, 1), (FRAMES, 1, 1))
        cameras[:, :3, :3] = np.diag([1.0, -1, -1])
        shape = (len(people), FRAMES)
        formats.write_3dpw(
            root, name, people, cameras, np.ones(shape), np.zeros((*shape, 3, 18)), np.zeros((*shape, 72))
        )
    return root


@pytest.fixture(scope="module")
def evidence(root, bodies) -> Path:
    """Predictions for both sequences: the true pose with bent knees, under the regressor's camera."""
    folder = root.parent / "evidence"
    for name in SEQUENCES:
        people = ThreeDPW(root, bodies.get).read(name).people
        (folder / name).mkdir(parents=True)
        write_predictions(folder / name / "predictions.npz", predictions(people, bodies))
    return folder


def predictions(people, bodies: BodySet) -> Predictions:
    truth = truth_columns(people, bodies.get)
    box = truth["boxes"]
    center, side = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).max(1) * 1.2
    focal = float(regressor_focal(*formats.SIZE))
    scale = 2 * 150.0 / (side * people.pelvis[:, 2])
    middle = (np.array(formats.SIZE) - 1) / 2
    shift = people.pelvis[:, :2] - np.array([0.0, -0.22]) - 2 * (center - middle) / (side * scale)[:, None]
    assert focal > 1000
    return Predictions(
        imgname=np.array(people.imgname), person=people.person,
        box_center=center.astype(np.float32), box_size=side.astype(np.float32),
        pred_cam=np.concatenate([scale[:, None], shift], 1).astype(np.float32),
        root=Rotation.from_rotvec(people.root).as_matrix().astype(np.float32),
        pose=bent(people.pose).astype(np.float32), betas=np.zeros((len(people), 10), np.float32),
    )  # fmt: skip


def bent(pose: np.ndarray) -> np.ndarray:
    rotations = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 23, 3, 3)
    rotations[:, 3:5] = rotations[:, 3:5] @ BEND.as_matrix()
    return rotations


def settings(root: Path, out: Path, smpl: Path, evidence: Path, regressor: Path) -> list[str]:
    return [
        f"root={root}", f"output.dir={out}", f"models.body={smpl}", "init=predictions", "keypoints2d=truth",
        f"evidence={evidence}", "intrinsics=known", f"regressors.h36m={regressor}",
        "protocol=[smpl24,h36m14]", *FAST,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def regressor(root, bodies) -> Path:
    matrix = np.zeros((17, bodies.get().num_vertices))
    for row in range(17):
        matrix[row, 700 * row : 700 * row + 40] = 1 / 40
    np.save(root.parent / "h36m.npy", matrix)
    return root.parent / "h36m.npy"


@pytest.fixture(scope="module")
def run(root, smpl_folder, evidence, regressor):  # noqa: F811
    out = root.parent / "out"
    arguments = settings(root, out, smpl_folder, evidence, regressor)
    return out, arguments, run_dataset("3dpw", load_config(arguments, DatasetConfig))


def test_the_baseline_s_error_is_the_one_that_was_put_in(run, root, bodies):
    """The prediction's error, computed apart: neutral body, bent knees, against the gendered truth."""
    _, _, result = run
    rows = result.scores["smpl24"].rows
    assert len(rows) == 3 * FRAMES
    people = ThreeDPW(root, bodies.get).read(SEQUENCES[0]).people
    pose = Rotation.from_matrix(bent(people.pose).reshape(-1, 3, 3)).as_rotvec().reshape(-1, 69)
    (ours, _), _ = pose_body(bodies.get("neutral"), people.root, pose, np.zeros_like(people.betas))
    for row, person in enumerate(people.person):
        body = bodies.get(people.gender[row])
        (theirs, _), _ = pose_body(
            body, people.root[row : row + 1], people.pose[row : row + 1], people.betas[row : row + 1]
        )
        expected = 1000 * np.linalg.norm(ours[row] - theirs[0], axis=-1).mean()
        found = [
            r["initial_mpjpe_mm"] for r in rows
            if r["imgname"] == people.imgname[row] and r["person"] == person
        ]  # fmt: skip
        assert found == pytest.approx([expected], abs=0.05)
        assert expected > 20


def test_both_sides_and_both_protocols_stand_in_the_tables(run):
    out, _, result = run
    assert not result.failed
    for name in ("smpl24", "h36m14"):
        folder = out / "eval" / name
        text = (folder / "table.md").read_text()
        assert f"protocol {name}" in text
        assert "known intrinsics" in text
        assert "2D from truth" in text
        with (folder / "rows.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 3 * FRAMES
        assert all(r["protocol"] == name and r["init"] == "predictions" for r in rows)
        assert all(r["body"] == "smpl-neutral" for r in rows)
        assert (folder / "worst.html").is_file()
    summary = json.loads((out / "eval" / "summary.json").read_text())
    assert summary["h36m14"]["mpjpe_mm"] != summary["smpl24"]["mpjpe_mm"]
    assert summary["smpl24"]["focal_percent"]["mean"] < 5  # it was told
    assert summary["smpl24"]["initial_focal_percent"]["mean"] > 500
    # Two sequences are two draws of the bootstrap, however many frames they have.
    interval = summary["smpl24"]["mpjpe_mm"]
    assert interval["low"] <= interval["mean"] <= interval["high"]


def test_a_second_call_fits_nothing_and_scores_anew(run, monkeypatch):
    out, arguments, result = run
    before = {path: path.stat().st_mtime_ns for path in (out / "fits").glob("*/parts/*.npz")}
    assert len(before) == 2 * FRAMES
    (out / "eval" / "smpl24" / "table.md").unlink()
    monkeypatch.setattr("depthfit.fit.fitter.Fitter.fit", lambda *_: pytest.fail("fitted again"))
    again = run_dataset("3dpw", load_config([*arguments, "protocol=[smpl24]"], DatasetConfig))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "eval" / "smpl24" / "table.md").is_file()
    assert again.scores["smpl24"].summary["mpjpe_mm"] == result.scores["smpl24"].summary["mpjpe_mm"]


def test_true_masks_and_the_fit_s_own_give_silhouette_ious(run, evidence, tmp_path):
    """True masks that are each person's box: a body fills some of it, and the table says how much. The fit's
    own are everything left of a line, and stand in a row of their own."""
    out, arguments, _ = run
    for name in SEQUENCES:
        with np.load(out / "scenes" / name / "ground_truth.npz") as truth:
            boxes, names, people = truth["boxes"], truth["imgname"], truth["person"]
        (evidence / name / "masks").mkdir(exist_ok=True)
        (tmp_path / "true" / name).mkdir(parents=True)
        for image in np.unique(names):
            labels = np.zeros(formats.SIZE[::-1], np.uint8)
            for row in np.flatnonzero(names == image)[::-1]:
                x0, y0, x1, y1 = boxes[row].round().astype(int).clip(0)
                labels[y0:y1, x0:x1] = people[row]
            file = f"{Path(str(image)).stem}.png"
            assert cv2.imwrite(str(tmp_path / "true" / name / file), labels)
            wrong = np.zeros_like(labels)
            wrong[:, :20] = 1
            assert cv2.imwrite(str(evidence / name / "masks" / file), wrong)
    wanted = [*arguments, f"masks={tmp_path / 'true'}", "iou=true", "protocol=[smpl24]"]
    rows = run_dataset("3dpw", load_config(wanted, DatasetConfig)).scores["smpl24"].rows
    ious = np.array([row["iou"] for row in rows])
    assert ((ious > 0.15) & (ious < 0.9)).all()
    assert all(row["own_iou"] < 0.1 for row in rows if row["person"] == 1)
    text = (out / "eval" / "smpl24" / "table.md").read_text()
    assert "| mIoU, % |" in text
    assert "| mIoU with the fit's own masks, % |" in text
    assert "2D from truth; reference of 2D errors = the fit's own 2D" in text


def test_masks_that_are_not_there_are_an_error(run, tmp_path):
    _, arguments, _ = run
    absent = [*arguments, f"masks={tmp_path / 'nowhere'}"]
    with pytest.raises(InputError, match="no such folder"):
        run_dataset("3dpw", load_config(absent, DatasetConfig))
    with pytest.raises(InputError, match="evidence"):
        run_dataset("3dpw", load_config([*arguments, "evidence=null", "iou=true"], DatasetConfig))


def test_a_2d_data_set_has_2d_figures_alone(root, bodies, smpl_folder, tmp_path):  # noqa: F811
    """COCO made of true projections: points that are fitted are met, and nothing is said of 3D."""
    people = ThreeDPW(root, bodies.get).read(SEQUENCES[1]).people
    one = replace(
        people, imgname=["1.jpg"], person=people.person[:1], gender=people.gender[:1], root=people.root[:1],
        pose=people.pose[:1], betas=people.betas[:1], pelvis=people.pelvis[:1], K=people.K[:1],
    )  # fmt: skip
    points = true_keypoints(truth_columns(one, bodies.get))[0, : len(COCO17)]
    entry = {"image_id": 1, "keypoints": (points * [1, 1, 2]).ravel().tolist(), "num_keypoints": 17}
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    entry |= {"bbox": [*low.tolist(), *(high - low).tolist()], "iscrowd": 0}
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [entry]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    formats.write_image(tmp_path / "images" / "1.jpg")
    (tmp_path / "evidence" / "coco_000").mkdir(parents=True)
    write_predictions(tmp_path / "evidence" / "coco_000" / "predictions.npz", predictions(one, bodies))
    arguments = [
        f"root={tmp_path / 'images'}", f"labels={tmp_path / 'val.json'}", f"output.dir={tmp_path / 'out'}",
        f"models.body={smpl_folder}", "init=predictions", "keypoints2d=truth",
        f"evidence={tmp_path / 'evidence'}", *FAST,
    ]  # fmt: skip
    summary = run_dataset("coco", load_config(arguments, DatasetConfig)).scores["image2d"].summary
    assert summary["people"] == 1
    assert summary["pck_box_005"]["mean"] > summary["initial_pck_box_005"]["mean"]
    assert summary["pck_box_010"]["mean"] == 1.0
    assert summary["pck"]["refined"]["pck_box_010"] == 1.0
    assert "mpjpe_mm" not in summary
    assert "focal_percent" not in summary


def test_a_stopped_run_goes_on(run):
    out, arguments, _ = run
    part = out / "fits" / SEQUENCES[1] / "parts" / f"{SEQUENCES[1]}_00001.npz"
    other = out / "fits" / SEQUENCES[0] / "parts" / f"{SEQUENCES[0]}_00000.npz"
    kept = other.stat().st_mtime_ns
    part.unlink()
    result = run_dataset("3dpw", load_config(arguments, DatasetConfig))
    assert part.is_file()
    assert other.stat().st_mtime_ns == kept
    assert result.scores["smpl24"].summary["missing"] == 0


def made_by(version: str, part: Path) -> None:
    with np.load(part) as data:
        arrays = dict(data)
    arrays["depthfit_version"] = np.full(arrays["depthfit_version"].shape, version)
    np.savez_compressed(part, **arrays)


def test_every_row_says_what_its_own_fit_was_made_with(run):
    out, arguments, _ = run
    summary = out / "fits" / SEQUENCES[1] / "summary.json"
    kept = summary.read_text()
    try:
        # As if that sequence had been fitted by another version, whose whole fits stay what they are.
        for part in (summary.parent / "parts").iterdir():
            made_by("0.0.1", part)
        run_dataset("3dpw", load_config([*arguments, "protocol=[smpl24]"], DatasetConfig))
        with (out / "eval" / "smpl24" / "rows.csv").open() as file:
            rows = list(csv.DictReader(file))
        for name, version in zip(SEQUENCES, (__version__, "0.0.1"), strict=True):
            mine = [row for row in rows if row["imgname"].startswith(name)]
            assert {row["fitted_with"] for row in mine} == {version}
            (config,) = {row["config"] for row in mine}
            assert config.startswith(str(out / "fits" / name / "config.yaml"))
        text = (out / "eval" / "smpl24" / "table.md").read_text()
        assert f"fitted with: {__version__}; 0.0.1" in text
        assert all(str(out / "fits" / name / "config.yaml") in text for name in SEQUENCES)
    finally:
        for part in (summary.parent / "parts").iterdir():
            made_by(__version__, part)
        summary.write_text(kept)


def test_other_settings_are_not_mixed_in(run):
    _, arguments, _ = run
    with pytest.raises(InputError, match=r"none could be used.*other settings"):
        run_dataset("3dpw", load_config([*arguments, "intrinsics=estimated"], DatasetConfig))


def test_a_bad_sequence_does_not_cost_the_others(run, root, tmp_path, capsys):
    _, arguments, _ = run
    folder = tmp_path / "3DPW"
    for part in ("sequenceFiles", "imageFiles"):
        (folder / part).parent.mkdir(exist_ok=True)
        (folder / part).symlink_to(root / part)
    (folder / "sequenceFiles").unlink()
    test = folder / "sequenceFiles" / "test"
    test.mkdir(parents=True)
    (test / f"{SEQUENCES[1]}.pkl").symlink_to(root / "sequenceFiles" / "test" / f"{SEQUENCES[1]}.pkl")
    (test / "broken.pkl").write_bytes(b"no pickle")
    changed = [f"root={folder}", f"output.dir={tmp_path / 'out'}", "every=2", "protocol=[smpl24]"]
    assert main(["eval", "3dpw", *arguments, *changed]) == 1
    printed = capsys.readouterr()
    assert "left out broken" in printed.err
    assert "| MPJPE, mm |" in printed.out


def test_what_a_protocol_needs_is_asked_for_before_anything_is_fitted(run, tmp_path):
    _, arguments, _ = run
    out = tmp_path / "out"
    wanted = [*arguments, f"output.dir={out}", "protocol=[tokenhmr14]"]
    with pytest.raises(InputError, match=r"regressors\.j19"):
        run_dataset("3dpw", load_config(wanted, DatasetConfig))
    absent = [*arguments, f"output.dir={out}", "init=tokenhmr", f"regressor.folder={tmp_path}"]
    with pytest.raises(InputError, match="tokenhmr_model"):
        run_dataset("3dpw", load_config(absent, DatasetConfig))
    with pytest.raises(InputError, match="topology"):
        run_dataset(
            "3dpw",
            load_config([*wanted, "true_body=open", f"models.body={_small(tmp_path)}"], DatasetConfig),
        )
    assert not out.exists()


def _small(folder: Path) -> str:
    """A SMPL file of another mesh."""
    export_smplx(random_body(), folder / "SMPL_NEUTRAL.pkl")
    return str(folder / "SMPL_NEUTRAL.pkl")


@pytest.mark.parametrize(
    ("settings", "failed", "reason"),
    [
        (["split=test"], {}, None),
        ([], {}, None),
        (["split=train"], {}, "split=train"),
        (["every=10", "sequences=[hall_00]"], {}, "every=10, sequences=hall_00"),
        ([], {"hall_00": "broken"}, "1 scenes left out"),
    ],
)
def test_published_figures_stand_beside_the_whole_test_split_alone(settings, failed, reason):
    rows, remark = _references("3dpw", "tokenhmr14", load_config(settings, DatasetConfig), failed)
    assert [row.method for row in rows][:2] == (["HMR2.0", "TokenHMR"] if reason is None else [])
    assert remark == (
        "" if reason is None else f"Not printed: they are of the whole test split, this is {reason}."
    )
    assert _references("coco", "image2d", load_config(["every=2"], DatasetConfig), {}) == ((), "")


def test_scenes_of_other_columns_are_stacked_by_those_they_share() -> None:
    names = np.array(["nose"])
    one = {"person": np.array([1]), "focal": np.array([2.0]), "keypoint_names": names}
    two = {"person": np.array([3, 4]), "keypoint_names": names}
    for tables in ([one, two], [two, one]):
        found = stack(tables)
        assert found.keys() == {"person", "keypoint_names"}
        assert sorted(found["person"].tolist()) == [1, 3, 4]
        assert found["keypoint_names"].tolist() == ["nose"]


def test_one_saved_fit_is_scored_by_its_files(run, tmp_path, capsys, smpl_folder):  # noqa: F811
    out, _, result = run
    fits, truth = out / "fits" / SEQUENCES[0] / "fits.npz", out / "scenes" / SEQUENCES[0] / "ground_truth.npz"
    arguments = [str(fits), str(truth), f"body={smpl_folder}", f"out={tmp_path}", "protocol=emdb24"]
    assert main(["eval", *arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["protocol"]["name"] == "emdb24"
    assert printed["people"] == 2 * FRAMES
    assert (tmp_path / "rows.csv").is_file()
    direct = run_eval(str(fits), str(truth), EvalConfig(out=str(tmp_path / "x"), matching="overlap"))
    rows = result.scores["smpl24"].rows[: 2 * FRAMES]
    assert direct["mpjpe_mm"]["mean"] == pytest.approx(np.mean([r["mpjpe_mm"] for r in rows]), abs=0.01)
    assert main(["eval", str(fits)]) == 2
