"""Masks by SAM (Kirillov et al., ICCV 2023) of ``transformers``, prompted by a person's box and keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthfit.evidence.keypoints import KeypointPerson
from depthfit.perception.batches import in_threads
from depthfit.perception.hub import half_on, load_network, load_processor

REPO = "facebook/sam-vit-huge"
MIN_CONFIDENCE = 0.5
"""Keypoints below this prompt nothing: a point beside the person adds what is there to the mask."""
BOX_MARGIN = 0.03
"""A box that was cut too close cuts the mask; it is widened by this share of its longer side."""


class PersonSegmenter:
    """SAM. On a GPU its image encoder, nearly all of it, computes in 16-bit floats.

    Args:
        model: ``SamModel``.
        processor: ``SamImageProcessor``.
        device: Where it computes.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self.model, self.processor, self.device = model.to(device), processor, device
        # Prompts are px of a square of 1024, which 16-bit floats would round.
        self.model.vision_encoder.to(half_on(device))

    @staticmethod
    def load(folder: Path, device: torch.device) -> PersonSegmenter:
        """From its files in the hub's layout.

        Raises:
            InputError: They cannot be used.
        """
        model = load_network("SamModel", folder, device)
        return PersonSegmenter(model, load_processor("SamImageProcessor", folder), device)

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        people: Sequence[Sequence[KeypointPerson]],
    ) -> list[np.ndarray]:
        """Labels (H, W) uint8 of several images: 0 = background, k = k-th person.

        Where two people's masks overlap, the one whose mask is surer there has the pixel.

        Args:
            images: (H, W, 3) uint8 RGB each.
            boxes: (n, 4) px of each image, x0 y0 x1 y1, in pixel edges.
            people: The keypoints of each image's n people.
        """
        inputs = in_threads(lambda image: self.processor(images=[image], return_tensors="pt"), images)
        pixels = torch.cat([each["pixel_values"] for each in inputs]).to(self.device, half_on(self.device))
        embeddings = self.model.get_image_embeddings(pixels).float()
        return [
            self._labels(embeddings[i : i + 1], inputs[i], boxes[i], people[i]) for i in range(len(images))
        ]

    def _labels(
        self, embedding: Tensor, inputs: Any, boxes: np.ndarray, people: Sequence[KeypointPerson]
    ) -> np.ndarray:
        size, reshaped = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        height, width = size[0].tolist()
        scale = (reshaped[0] / size[0]).flip(0).float()
        best = np.zeros((height, width), np.float32)
        labels = np.zeros((height, width), np.uint8)
        for k, (box, person) in enumerate(zip(boxes, people, strict=True), start=1):
            prompt = _prompt(box, person, (height, width), scale)
            prompt = {name: value.to(self.device) for name, value in prompt.items()}
            output = self.model(image_embeddings=embedding, multimask_output=False, **prompt)
            masks = output.pred_masks[:, 0].float().cpu()
            (full,) = self.processor.post_process_masks([masks], size, reshaped, binarize=False)
            logits = full[0, 0].numpy()
            wins = logits > best
            best, labels = np.where(wins, logits, best), np.where(wins, np.uint8(k), labels)
        return labels


def _prompt(
    box: np.ndarray, person: KeypointPerson, image_size: tuple[int, int], scale: Tensor
) -> dict[str, Tensor]:
    """SAM's prompts for one person: the box, and the sure keypoints as points on the person.

    ``scale`` (2,) is px of SAM's square per px of the image. SAM's prompts count pixel centres.
    """
    height, width = image_size
    margin = BOX_MARGIN * max(box[2] - box[0], box[3] - box[1])
    low = np.maximum(box[:2] - margin, 0)
    high = np.minimum(box[2:] + margin, [width, height])

    def to_square(edges: np.ndarray) -> Tensor:
        return torch.from_numpy(edges).float() * scale - 0.5

    corners = to_square(np.stack([low, high])).reshape(1, 1, 4)
    given = {"input_boxes": corners}
    sure = person.xy[person.confidence >= MIN_CONFIDENCE]
    if len(sure):
        given["input_points"] = to_square(sure + 0.5)[None, None]
        given["input_labels"] = torch.ones((1, 1, len(sure)), dtype=torch.long)
    return given
