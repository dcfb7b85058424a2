"""Settings of ``depthfit pseudo-gt``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from depthfit.errors import InputError, check_choice
from depthfit.fit.config import FitConfig
from depthfit.perception.depth_pro import REPO
from depthfit.run.config import ModelConfig

TARGETS = ("auto", "tars", "npz", "coco")
ENGINES = ("local", "ray")
INITS = ("label", "keypoints")
DEPTHS = ("none", "depth_pro")
POLICIES = ("original", "drop")


@dataclass
class GateConfig:
    """When a refined label is believed. A limit of ``null`` is not asked.

    The limits were chosen on 96 synthetic people (``depthfit bench gate images=48 seeds=[100,101]``) so that
    80 % are kept. Without a depth map and a known camera the focal is less sure than ``max_focal_sd``: labels
    that only 2D keypoints speak for are then not believed.

    Attributes:
        use: Gate at all; without, every accepted fit is kept.
        max_reprojection: % of the person's size in the image, median over the detected keypoints.
        max_depth_residual: % of the distance, median absolute over the depth pixels.
        max_joint_sd: mm, posterior standard deviation, root mean square over the joints.
        max_focal_sd: %, posterior standard deviation of the focal.
        max_prior: sigmas, root mean square of the pose's distance to the start.
        max_beta: Largest absolute shape coefficient; loaders of 4D-Humans discard labels beyond 3.
        min_keypoints: Detected keypoints.
        min_inside: % of the fitted body's keypoints that lie inside the image.
    """

    use: bool = True
    max_reprojection: float | None = 4.0
    max_depth_residual: float | None = 4.0
    max_joint_sd: float | None = 50.0
    max_focal_sd: float | None = 17.5
    max_prior: float | None = 1.0
    max_beta: float | None = 3.0
    min_keypoints: int = 6
    min_inside: float = 50.0


@dataclass
class PerceiveConfig:
    """What is estimated from the images themselves.

    Attributes:
        depth: ``none``, or ``depth_pro`` for images that have no depth map.
        model: Depth Pro: owner/name on the hub, a folder, or the depth_pro package's checkpoint (.pt).
        folder: Where models that were fetched by hand are looked for.
        batch: Images that go through the network together.
        workers: Processes that perceive, with engine=ray.
        gpus_per_worker, cpus_per_worker: Share of a GPU, and CPU cores, for each of them.
    """

    depth: str = "none"
    model: str = REPO
    folder: str = "models"
    batch: int = 4
    workers: int = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0


@dataclass
class PolicyConfig:
    """What becomes of a person whose refined label is not kept: ``original`` keeps the label that the source
    had, ``drop`` leaves the person out.

    Attributes:
        refused: Of people whose fit was refused by the verdict.
        doubtful: Of people whose fit the gate does not believe.
        failed: Of people who could not be fitted. Labels with numbers that are not finite are dropped.
    """

    refused: str = "original"
    doubtful: str = "original"
    failed: str = "original"


@dataclass
class PseudoConfig:
    """All settings of a run.

    Attributes:
        engine: ``local`` (this process) or ``ray``.
        address: Of a Ray cluster; ``auto`` joins the one that this machine belongs to, ``null`` starts one.
        workers: Processes that fit, with engine=ray.
        gpus_per_worker: Share of a GPU for each of them.
        cpus_per_worker: CPU cores for each of them.
        target: ``auto`` writes the layout of the source; ``tars``, ``npz`` (CameraHMR) or ``coco``.
        images: Folder of the images of a COCO or npz source.
        depth: Folder with NAME.npz depth maps, where the source has none of its own.
        init: Start from the source's ``label`` (from keypoints where a person has none), or always from
            ``keypoints``.
        keypoint_format: Of a scene's keypoint files.
        shard_images: Images in a shard, where the source is not in shards itself.
        chunk: People in a chunk: what is fitted together and, after a crash, done again.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Of every random draw.
        report_people: Worst and random people shown in the report, each.
        perceive: What is estimated from the images before the fit.
        fit: The fit.
        gate: The quality gate.
        policy: What is done with those who do not pass.
        models: Body and tokenizer.
    """

    engine: str = "local"
    address: str | None = None
    workers: int = 2
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0
    target: str = "auto"
    images: str | None = None
    depth: str | None = None
    init: str = "label"
    keypoint_format: str | None = None
    shard_images: int = 1000
    chunk: int = 16
    device: str = "auto"
    seed: int = 0
    report_people: int = 6
    perceive: PerceiveConfig = field(default_factory=PerceiveConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    models: ModelConfig = field(default_factory=ModelConfig)

    def validate(self) -> None:
        """Refuse settings that cannot be used.

        Raises:
            InputError: Names the setting.
        """
        words = [
            ("engine", self.engine, ENGINES),
            ("target", self.target, TARGETS),
            ("init", self.init, INITS),
            ("perceive.depth", self.perceive.depth, DEPTHS),
            *((f"policy.{k}", v, POLICIES) for k, v in dataclasses.asdict(self.policy).items()),
        ]
        for name, value, known in words:
            check_choice("command line", name, value, known)
        for name in ("workers", "chunk", "shard_images"):
            if getattr(self, name) < 1:
                raise InputError("command line", name, str(getattr(self, name)), "Use at least 1.")
        self.fit.validate()


NOT_RESULTS = (
    "engine", "address", "workers", "gpus_per_worker", "cpus_per_worker", "device", "report_people",
)  # fmt: skip
"""Settings that change no label: a run may go on under others."""


def fingerprint(config: PseudoConfig) -> str:
    """SHA-256 of the settings that labels depend on."""
    settings: dict[str, Any] = dataclasses.asdict(config)
    for name in NOT_RESULTS:
        del settings[name]
    for name in ("workers", "gpus_per_worker", "cpus_per_worker"):
        del settings["perceive"][name]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
