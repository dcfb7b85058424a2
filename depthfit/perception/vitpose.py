"""2D keypoints by ViTPose (Xu et al., NeurIPS 2022) of ``transformers``, person by person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthfit.errors import InputError
from depthfit.evidence.keypoints import KeypointPerson, keypoint_person
from depthfit.joints import COCO17, FEET
from depthfit.perception.batches import in_threads
from depthfit.perception.hub import half_on, load_network, load_processor

REPO = "usyd-community/vitpose-plus-huge"
POINT_SETS: dict[int, tuple[tuple[str, ...], int]] = {17: (COCO17, 0), 133: ((*COCO17, *FEET), 5)}
"""By a head's number of points: names of the first of them (face and hands of COCO-WholeBody are not used),
and the data set's index, by which ViTPose++ picks its experts."""
CROPS = 32
"""People in one forward pass."""


class PoseEstimator:
    """ViTPose or ViTPose++ with a COCO or COCO-WholeBody head.

    Args:
        model: ``VitPoseForPoseEstimation``.
        processor: ``VitPoseImageProcessor``.
        device: Where it computes; 16-bit floats on a GPU.

    Raises:
        InputError: The head has another set of points.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self.model, self.processor = model.to(device, half_on(device)), processor
        self.device = device
        points = int(model.config.num_labels)
        if points not in POINT_SETS:
            known = " or ".join(str(number) for number in POINT_SETS)
            fix = f"Use a COCO or COCO-WholeBody model ({known} points), such as {REPO}."
            source = model.config.name_or_path or "pose estimator"
            raise InputError(source, "num_labels", f"a head of {points} points", fix)
        self.names, expert = POINT_SETS[points]
        experts = int(getattr(model.config.backbone_config, "num_experts", 1))
        self.expert = expert if experts > 1 else None

    @staticmethod
    def load(folder: Path, device: torch.device) -> PoseEstimator:
        """From its files in the hub's layout.

        Raises:
            InputError: They cannot be used.
        """
        model = load_network("VitPoseForPoseEstimation", folder, device, half_on(device))
        return PoseEstimator(model, load_processor("VitPoseImageProcessor", folder), device)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], min_score: float
    ) -> list[list[KeypointPerson]]:
        """Keypoints of the people in several images, whose crops go through the network together.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: (n, 4) px of each image, x0 y0 x1 y1, in pixel edges.
            min_score: Points with a lower score are missing.

        Returns:
            The n people of each image, some perhaps without a point.
        """
        listed = [(image, box) for image, people in zip(images, boxes, strict=True) for box in people]
        found: list[KeypointPerson] = []
        for start in range(0, len(listed), CROPS):
            found += self._crops(listed[start : start + CROPS], min_score)
        rest = iter(found)
        return [[next(rest) for _ in people] for people in boxes]

    def _crops(self, listed: list[tuple[np.ndarray, np.ndarray]], min_score: float) -> list[KeypointPerson]:
        crops = [(image, [[x0, y0, x1 - x0, y1 - y0]]) for image, (x0, y0, x1, y1) in listed]
        pixels = torch.cat(in_threads(self._pixels, crops)).to(self.device, half_on(self.device))
        experts = {}
        if self.expert is not None:
            experts["dataset_index"] = torch.full((len(listed),), self.expert, device=self.device)
        output = self.model(pixel_values=pixels, **experts)
        output.heatmaps = output.heatmaps.float()
        found = self.processor.post_process_pose_estimation(output, boxes=[box for _, box in crops])
        return [self._person(result, min_score) for (result,) in found]

    def _pixels(self, crop: tuple[np.ndarray, list[list[float]]]) -> torch.Tensor:
        image, box = crop
        pixels: torch.Tensor
        pixels = self.processor(images=[image], boxes=[box], return_tensors="pt")["pixel_values"]
        return pixels

    def _person(self, result: dict[str, torch.Tensor], min_score: float) -> KeypointPerson:
        xy = result["keypoints"].double().numpy()
        score = result["scores"].double().numpy().reshape(-1)
        triples = np.column_stack([xy, np.where(score >= min_score, score, 0.0)])[: len(self.names)]
        # A flat heatmap has no peak to refine, which leaves no number.
        triples[~np.isfinite(triples).all(-1)] = 0.0
        return keypoint_person(self.names, triples)
