"""``depthfit bench masks``: masks from the depth edge against the true ones of synthetic scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.progress import track

from depthfit.atomic import atomic_path
from depthfit.evidence.match import match_masks
from depthfit.evidence.scene import ImageEvidence, read_scene
from depthfit.perception.depth_mask import depth_masks
from depthfit.synth import SynthConfig, make_scene


@dataclass
class MaskBenchConfig:
    """Settings of ``depthfit bench masks``.

    Attributes:
        synth: The scenes, as ``depthfit synth`` makes them; their masks are exact here.
        out: Folder of the table.
    """

    synth: SynthConfig = field(default_factory=lambda: SynthConfig(seed=301, images=48, token_probs=False))
    out: str = "output/bench"


@dataclass(frozen=True)
class MaskScore:
    """One person: people in the image, the share that others leave visible, and IoU, precision, recall."""

    people: int
    visible: float
    iou: float
    precision: float
    recall: float


def run_masks(config: MaskBenchConfig) -> str:
    """Make scenes, find the masks and compare; returns the Markdown table, also written to ``out``."""
    config.synth.noise.mask_px = config.synth.noise.mask_bites = 0.0
    with TemporaryDirectory() as folder:
        root = make_scene(config.synth, Path(folder) / "scene")
        scene = read_scene(root, config.synth.keypoint_format)
        with np.load(Path(root) / "ground_truth.npz") as truth:
            visible = {
                (Path(str(name)).stem, int(k)): float(share)
                for name, k, share in zip(truth["imgname"], truth["person"], truth["unhidden"], strict=True)
            }
        scores = [
            score
            for name in track(scene.names, description="Masks")
            for score in score_image(scene.read(name), visible)
        ]
    table = mask_table(scores)
    with atomic_path(Path(config.out) / "masks.md") as temporary:
        temporary.write_text(table + "\n")
    return table


def score_image(evidence: ImageEvidence, visible: dict[tuple[str, int], float]) -> list[MaskScore]:
    """Scores of an image's people, by its depth, keypoints and true labels."""
    assert evidence.labels is not None
    assert evidence.depth is not None
    numbers = match_masks(evidence.people, evidence.labels).tolist()
    found = depth_masks(evidence.depth, evidence.people, evidence.size)
    scores = []
    for k, number in enumerate(numbers, start=1):
        if number == 0:
            continue
        ours, true = found == k, evidence.labels == number
        both = float((ours & true).sum())
        scores.append(
            MaskScore(
                people=len(numbers),
                visible=visible[evidence.name, number],
                iou=both / float((ours | true).sum()),
                precision=both / max(float(ours.sum()), 1.0),
                recall=both / float(true.sum()),
            )
        )
    return scores


def mask_table(scores: list[MaskScore]) -> str:
    """Means by how much of a person is hidden."""
    groups = {
        "alone in the image": [s for s in scores if s.people == 1],
        "with others, not hidden by them": [s for s in scores if s.people > 1 and s.visible > 0.99],
        "partly hidden by others": [s for s in scores if s.people > 1 and s.visible <= 0.99],
        "all": scores,
    }
    lines = [
        "| people | number | IoU, mean | median | 10th percentile | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        if group:
            iou = [s.iou for s in group]
            values = (
                np.mean(iou),
                np.median(iou),
                np.quantile(iou, 0.1),
                np.mean([s.precision for s in group]),
                np.mean([s.recall for s in group]),
            )
            lines.append(" | ".join([f"| {name}", str(len(group)), *(f"{v:.3f}" for v in values)]) + " |")
    return "\n".join(lines)
