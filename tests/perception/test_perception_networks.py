"""Geometry of the wrappers: networks that answer what is known beforehand, through the real processors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from depthfit.evidence.keypoints import KeypointPerson
from depthfit.joints import COCO17, FEET, KEYPOINTS
from depthfit.perception.detector import PersonDetector
from depthfit.perception.sam import PersonSegmenter
from depthfit.perception.vitpose import PoseEstimator
from tests.perception.networks import FOLDERS, write_tiny

CPU = torch.device("cpu")
PADDING = 1.25
"""ViTPose's crop is the box, brought to 3:4, times this."""


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def nobody() -> KeypointPerson:
    return KeypointPerson(np.zeros((len(KEYPOINTS), 2)), np.zeros(len(KEYPOINTS)))


def test_detector_boxes_are_pixel_edges_of_people_by_score(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = PersonDetector.load(models / FOLDERS["detector"], CPU)
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.25, 0.5, 0.6, 1.0]]).repeat(2, 1, 1)
    # Queries: a sure cat at one place, at the other a person, in the second image surer than the first.
    logits = torch.tensor([[[-9.0, 5.0], [0.4, -9.0]], [[2.0, -9.0], [3.0, -9.0]]])
    fixed = SimpleNamespace(logits=logits, pred_boxes=boxes)
    monkeypatch.setattr(detector, "model", lambda pixel_values: fixed)
    one, two = detector([blank(100, 200), blank(80, 40)], 0.5)
    np.testing.assert_allclose(one.xyxy, [[0, 0, 110, 100]], atol=1e-4)  # cut at the image's edge
    np.testing.assert_allclose(two.xyxy, [[0, 0, 22, 80], [10, 30, 30, 50]], atol=1e-4)
    np.testing.assert_allclose(two.score, torch.tensor([3.0, 2.0]).sigmoid().numpy(), atol=1e-5)
    assert len(detector([blank(100, 200)] * 2, 0.99)[0].xyxy) == 0


def test_detector_on_images_of_any_size_and_batch(models: Path) -> None:
    detector = PersonDetector.load(models / FOLDERS["detector"], CPU)
    images = [np.random.default_rng(k).integers(0, 256, (60 + 20 * k, 90, 3), np.uint8) for k in range(2)]
    together = detector(images, 0.5)
    for image, got in zip(images, together, strict=True):
        (alone,) = detector([image], 0.5)
        assert len(alone.xyxy) == 2
        np.testing.assert_allclose(got.xyxy, alone.xyxy, atol=1e-2)


def peaks(places: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Heatmaps (n, K, h, w) with a peak of height 0.8 at places (n, K, 2) of x, y."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    at = torch.from_numpy(places)[..., None, None]
    return 0.8 * torch.exp(-((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / 8)


def test_keypoints_come_back_from_the_crop_to_the_image(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = PoseEstimator.load(models / FOLDERS["keypoints"], CPU)
    size = (64, 48)
    places = np.random.default_rng(0).uniform(8, 40, (3, 17, 2))
    heatmaps = peaks(places, size)
    heatmaps[1, 4] *= 0.2  # below the least score
    monkeypatch.setattr(estimator, "model", lambda pixel_values: SimpleNamespace(heatmaps=heatmaps))
    boxes = [np.array([[10.0, 20, 70, 100], [30, 5, 130, 45]]), np.array([[0.0, 0, 60, 60]])]
    people = estimator([blank(150, 140), blank(60, 60)], boxes, 0.3)
    assert [len(found) for found in people] == [2, 1]
    flat = [person for found in people for person in found]
    for k, (box, person) in enumerate(zip(np.concatenate(boxes), flat, strict=True)):
        center, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        high = max(extent[1], extent[0] * 4 / 3)
        crop = PADDING * np.array([high * 3 / 4, high])
        # Unbiased data processing: the crop spans the distance of the first and last cell's centres.
        expected = center + (places[k] / (np.array(size[::-1]) - 1) - 0.5) * crop
        seen = person.found[:17]
        assert seen.all() == (k != 1)
        cell = crop / np.array(size[::-1])
        assert np.abs((person.xy[:17] - expected) / cell)[seen].max() < 0.1
        assert 0.5 < person.confidence[:17][seen].min() <= 0.8
    assert not flat[1].found[4]


def test_wholebody_gives_feet_and_no_face(tmp_path: Path) -> None:
    write_tiny(tmp_path, "keypoints", num_labels=133)
    estimator = PoseEstimator.load(tmp_path / FOLDERS["keypoints"], CPU)
    ((person,),) = estimator([blank(80, 60)], [np.array([[5.0, 5, 55, 75]])], 0.3)
    found = {name for name, seen in zip(KEYPOINTS, person.found, strict=True) if seen}
    assert found <= {*COCO17, *FEET}
    assert found & set(FEET)


@pytest.mark.parametrize(("points", "expert"), [(17, 0), (133, 5)])
def test_vitpose_plus_gets_the_expert_of_its_data_set(
    tmp_path: Path, points: int, expert: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.perception.networks import TINY

    backbone = {**TINY["keypoints"]["backbone_config"], "num_experts": 6}
    write_tiny(tmp_path, "keypoints", num_labels=points, backbone_config=backbone)
    estimator = PoseEstimator.load(tmp_path / FOLDERS["keypoints"], CPU)
    real, asked = estimator.model, []

    def spy(**inputs: Any) -> Any:
        asked.append(inputs["dataset_index"].tolist())
        return real(**inputs)

    monkeypatch.setattr(estimator, "model", spy)
    estimator([blank(80, 60)], [np.array([[5.0, 5, 55, 75]] * 2)], 0.3)
    assert asked == [[expert, expert]]


def test_nobody_in_an_image_asks_no_network(models: Path) -> None:
    estimator = PoseEstimator.load(models / FOLDERS["keypoints"], CPU)
    none = np.zeros((0, 4))
    assert estimator([blank(20, 20)], [none], 0.3) == [[]]


class _Answering:
    """A SAM that paints the box prompt, pulled in by a margin, into its low-resolution mask."""

    def __init__(self, side: int) -> None:
        self.side, self.prompts = side, []
        self.vision_encoder = torch.nn.Identity()

    def get_image_embeddings(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(pixels), 1)

    def __call__(self, input_boxes: torch.Tensor, **prompt: Any) -> SimpleNamespace:
        self.prompts.append({"input_boxes": input_boxes, **prompt})
        low = torch.arange(self.side) * 4 + 1.5  # pixel centres of a mask of a quarter of the side
        x0, y0, x1, y1 = input_boxes[0, 0].tolist()
        inside = ((low > y0) & (low < y1))[:, None] & ((low > x0) & (low < x1))[None]
        strength = 1.0 if len(self.prompts) == 1 else 2.0
        mask = torch.where(inside, strength, -1.0)
        return SimpleNamespace(pred_masks=mask[None, None, None])


def test_masks_lie_where_the_prompts_were(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = PersonSegmenter.load(models / FOLDERS["masks"], CPU)
    answering = _Answering(16)
    monkeypatch.setattr(segmenter, "model", answering)
    person = nobody()
    person.xy[0], person.confidence[0] = (99.5, 49.5), 0.9
    person.xy[1], person.confidence[1] = (10, 10), 0.2  # not sure enough to prompt
    boxes = np.array([[20.0, 10, 100, 90], [80, 10, 180, 90]])
    (labels,) = segmenter([blank(100, 200)], [boxes], [[person, nobody()]])
    assert labels.shape == (100, 200)
    cell = 200 / 16
    for k, (left, right) in ((1, (20, 80)), (2, (80, 180))):  # the second is surer where both claim
        columns = np.flatnonzero((labels == k).any(0))
        rows = np.flatnonzero((labels == k).any(1))
        assert abs(columns[0] - left) < cell
        assert abs(columns[-1] - right) < cell
        assert abs(rows[0] - 10) < cell
        assert abs(rows[-1] - 90) < cell
    first, second = answering.prompts
    # 200 px are 64 of the square; the middle of pixel 99 in the image is edge 100, the middle of the square.
    torch.testing.assert_close(first["input_points"], torch.tensor([[[[31.5, 15.5]]]]), atol=1e-4, rtol=0)
    assert first["input_labels"].tolist() == [[[1]]]
    assert "input_points" not in second


def test_sam_itself_takes_the_prompts(models: Path) -> None:
    segmenter = PersonSegmenter.load(models / FOLDERS["masks"], CPU)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, size, np.uint8) for size in ((90, 120, 3), (200, 150, 3))]
    person = nobody()
    person.xy[:5], person.confidence[:5] = rng.uniform(20, 80, (5, 2)), 0.9
    boxes = [np.array([[10.0, 10, 90, 80], [40, 20, 110, 88]]), np.array([[20.0, 20, 120, 180]])]
    people = [[person, nobody()], [person]]
    labels = segmenter(images, boxes, people)
    assert [one.shape for one in labels] == [(90, 120), (200, 150)]
    alone = segmenter(images[1:], boxes[1:], people[1:])
    assert (alone[0] == labels[1]).mean() > 0.999
