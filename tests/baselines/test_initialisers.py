"""Where fits start from: the regressor's people, and people from keypoints alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import InitContext, initialiser
from baselines.keypoints import person_numbers
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.camera import image_center, intrinsics, project
from depthfit.errors import InputError
from depthfit.evidence.predictions import SIMULATED
from depthfit.evidence.scene import ImageEvidence, read_scene
from depthfit.evidence.token_probs import TOKEN_SHAPE
from depthfit.fit import FitConfig
from depthfit.fit.adapter import Prediction
from depthfit.synth import SynthConfig, make_scene
from depthfit.synth.config import PredictionNoise
from tests.body.smpl_files import smpl_fields

SIZE = (320, 240)


@pytest.fixture(scope="module")
def context() -> InitContext:
    config = FitConfig()
    config.pose.space = "rotations"
    return InitContext(load_body(), None, config, torch.device("cpu"), 0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person in each of two images, whom the regressor sees as they are."""
    config = SynthConfig(seed=5, images=2, width=SIZE[0], height=SIZE[1], people_weights=(1.0,))
    config.pose_mix, config.token_probs = (1.0, 0.0, 0.0), False
    config.noise.prediction = PredictionNoise(**dict.fromkeys(PredictionNoise.__dataclass_fields__, 0.0))
    config.noise.keypoint_outliers = 0.0
    return Path(make_scene(config, tmp_path_factory.mktemp("init") / "scene"))


@pytest.fixture(scope="module")
def evidence(scene: Path) -> ImageEvidence:
    return read_scene(scene, "coco17").read("00000")


def reprojection(prediction: Prediction, context: InitContext) -> float:
    """Median distance of the predicted to the detected points over the detection's longer side."""
    batch = [t[None] for t in (prediction.root, prediction.pose, prediction.betas)]
    points = context.body.keypoints(*context.body.forward(*batch))[0] + prediction.transl
    camera = intrinsics(torch.tensor(prediction.focal), image_center(*SIZE))
    detection = prediction.detection
    assert detection is not None
    error = np.linalg.norm(project(points, camera).numpy() - detection.xy, axis=-1)[detection.found]
    box = detection.box()
    return float(np.median(error) / max(box[2] - box[0], box[3] - box[1]))


def test_a_faultless_regressors_people_lie_on_their_keypoints(
    evidence: ImageEvidence, context: InitContext
) -> None:
    (prediction,) = initialiser("predictions")(evidence, context)
    assert (prediction.person, prediction.row) == (1, 0)
    assert prediction.focal == pytest.approx(5000 / 256 * max(SIZE))
    # A crop camera knows no perspective, so that a few per cent remain.
    assert reprojection(prediction, context) < 0.04


def test_entropies_of_tokens_and_what_is_usual_of_whom(evidence: ImageEvidence, context: InitContext) -> None:
    rows = evidence.predictions
    assert rows is not None
    assert initialiser("predictions")(evidence, context)[0].token_entropy is None
    # Half of the tokens are certain, the others evenly spread over eight codes.
    probabilities = np.zeros((1, *TOKEN_SHAPE), np.float16)
    probabilities[:, ::2, 5] = 1
    probabilities[:, 1::2, 16:24] = 1 / 8
    usual = {SIMULATED: pytest.approx(1.04), "tokenhmr": None, None: None}
    for regressor, expected in usual.items():
        told = replace(rows, token_probs=probabilities, regressor=regressor)
        (prediction,) = initialiser("predictions")(replace(evidence, predictions=told), context)
        assert prediction.token_entropy == pytest.approx(np.log(8) / 2, rel=1e-3)
        assert prediction.usual_entropy == expected


def test_keypoints_alone_give_a_person_on_their_keypoints(
    evidence: ImageEvidence, context: InitContext
) -> None:
    (prediction,) = initialiser("keypoints")(evidence, context)
    assert prediction.row == -1
    assert prediction.pose_sigma is not None
    assert reprojection(prediction, context) < 0.04
    assert 0.5 < float(prediction.transl[2]) < 30
    # Upright in the camera's frame, y down: the head is above the pelvis.
    up = prediction.root[:, 1]
    assert float(up[1]) < -0.5


def test_people_take_the_number_of_their_mask_not_of_the_detector(evidence: ImageEvidence) -> None:
    (person,) = evidence.people
    right = replace(person, xy=person.xy + np.where(person.found, 400.0, 0.0)[:, None])
    outside = replace(person, xy=person.xy + np.where(person.found, 4000.0, 0.0)[:, None])
    labels = np.zeros((1200, 1200), np.uint8)
    for label, owner in ((1, right), (2, person)):
        x0, y0, x1, y1 = owner.box().astype(int)
        labels[y0 : y1 + 1, x0 : x1 + 1] = label
    assert person_numbers([person, outside, right], labels) == [2, 3, 1]
    assert person_numbers([person, right], None) == [1, 2]


def test_too_few_keypoints_make_no_person(evidence: ImageEvidence, context: InitContext) -> None:
    (person,) = evidence.people
    confidence = person.confidence.copy()
    confidence[np.flatnonzero(person.found)[4:]] = 0
    few = replace(person, confidence=confidence, xy=np.where(confidence[:, None] > 0, person.xy, 0))
    assert initialiser("keypoints")(replace(evidence, people=(few,)), context) == []


@pytest.fixture(scope="module")
def smpl(tmp_path_factory: pytest.TempPathFactory) -> Body:
    """A body of SMPL's layout whose pelvis rests where SMPL's does."""
    fields = smpl_fields()
    fields["J_regressor"] = fields["J_regressor"].toarray()
    fields["v_template"] += [-0.0018, -0.2233, 0.0282] - fields["J_regressor"][0] @ fields["v_template"]
    path = tmp_path_factory.mktemp("smpl") / "SMPL_NEUTRAL.npz"
    np.savez(path, **fields)
    return load_body(path)


@pytest.mark.parametrize("regressor", ["tokenhmr", "hmr2"])
def test_smpls_shapes_are_not_taken_for_the_open_bodys(
    evidence: ImageEvidence, context: InitContext, smpl: Body, regressor: str
) -> None:
    rows = evidence.predictions
    assert rows is not None
    betas = np.linspace(-2, 2, 10, dtype=np.float32)[None]
    marked = replace(evidence, predictions=replace(rows, betas=betas, regressor=regressor))
    with_smpl = replace(context, body=smpl)
    (found,) = initialiser("predictions")(marked, context)
    (right,) = initialiser("predictions")(marked, with_smpl)
    assert not found.has_betas
    assert not found.betas.any()
    assert right.has_betas
    assert np.array_equal(right.betas, betas[0])
    assert torch.equal(found.pose, right.pose)
    assert torch.equal(found.root, right.root)
    # The regressor's camera puts the pelvis of either body of mean shape where SMPL's is.
    mean = replace(marked, predictions=replace(rows, betas=0 * betas, regressor=regressor))
    (expected,) = initialiser("predictions")(mean, with_smpl)
    torch.testing.assert_close(found.transl, expected.transl, atol=1e-3, rtol=0)
    # What has no mark is of the body that is fitted.
    (own,) = initialiser("predictions")(replace(mean, predictions=replace(rows, betas=betas)), context)
    assert own.has_betas
    assert np.array_equal(own.betas, betas[0])


def test_missing_predictions_and_unknown_names_are_explained(
    evidence: ImageEvidence, context: InitContext
) -> None:
    with pytest.raises(InputError, match="init=keypoints"):
        initialiser("predictions")(replace(evidence, predictions=None), context)
    with pytest.raises(InputError, match="Use one of: predictions, keypoints"):
        initialiser("magic")
