"""People's boxes by RT-DETR (Zhao et al., CVPR 2024) of ``transformers``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthfit.errors import InputError
from depthfit.perception.batches import in_threads
from depthfit.perception.hub import load_network, load_processor

REPO = "PekingU/rtdetr_r50vd_coco_o365"
PERSON = "person"


@dataclass(frozen=True)
class Boxes:
    """People found in one image, the surest first.

    Attributes:
        xyxy: (n, 4) px, x0 y0 x1 y1, in pixel edges: the whole image is (0, 0, W, H).
        score: (n,) in [0, 1].
    """

    xyxy: np.ndarray
    score: np.ndarray


class PersonDetector:
    """RT-DETR, of whose classes only ``person`` counts. In float32: it is small.

    Args:
        model: ``RTDetrForObjectDetection``.
        processor: ``RTDetrImageProcessor``.
        device: Where it computes.

    Raises:
        InputError: The network does not know people.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self.model, self.processor, self.device = model.to(device), processor, device
        names = {str(name).lower(): int(index) for index, name in model.config.id2label.items()}
        if PERSON not in names:
            source = model.config.name_or_path or "detector"
            found = f"no class {PERSON!r} among {len(names)}"
            raise InputError(source, "id2label", found, f"Use a detector that was trained on COCO: {REPO}.")
        self.person = names[PERSON]

    @staticmethod
    def load(folder: Path, device: torch.device) -> PersonDetector:
        """From its files in the hub's layout.

        Raises:
            InputError: They cannot be used.
        """
        model = load_network("RTDetrForObjectDetection", folder, device)
        return PersonDetector(model, load_processor("RTDetrImageProcessor", folder), device)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray], min_score: float) -> list[Boxes]:
        """Boxes in images (H, W, 3) uint8 RGB of any sizes, in one batch."""
        pixels = torch.cat(in_threads(self._pixels, images)).to(self.device)
        output = self.model(pixel_values=pixels)
        sizes = [image.shape[:2] for image in images]
        found = self.processor.post_process_object_detection(output, min_score, target_sizes=sizes)
        return [self._people(result, size) for result, size in zip(found, sizes, strict=True)]

    def _pixels(self, image: np.ndarray) -> torch.Tensor:
        pixels: torch.Tensor = self.processor(images=[image], return_tensors="pt")["pixel_values"]
        return pixels

    def _people(self, result: dict[str, torch.Tensor], size: tuple[int, ...]) -> Boxes:
        height, width = size
        keep = result["labels"] == self.person
        score = result["scores"][keep].cpu().double().numpy()
        xyxy = np.clip(result["boxes"][keep].cpu().double().numpy(), 0, [width, height, width, height])
        whole = (xyxy[:, 2:] - xyxy[:, :2] >= 1).all(-1)
        order = np.argsort(-score[whole], kind="stable")
        return Boxes(xyxy[whole][order], score[whole][order])
