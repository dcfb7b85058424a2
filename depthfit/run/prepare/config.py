"""The settings of ``depthfit prepare``."""

from __future__ import annotations

from dataclasses import dataclass, field

from baselines import REGRESSORS
from depthfit.errors import InputError, check_choice
from depthfit.perception import depth_pro, detector, sam, vitpose
from depthfit.run.config import RegressorConfig

KEYPOINTS = "keypoints"
"""The start without a regressor."""
VITPOSE = "vitpose"


@dataclass
class BoxConfig:
    """Where the people are.

    Attributes:
        source: ``auto`` (from the keypoints where those are given, else detected), ``detect``,
            ``keypoints``, or a JSON file: {"NAME": [[x0, y0, x1, y1], ...]}, or COCO with ``bbox``.
        model: The detector, an RT-DETR: owner/name on the hub, or a folder.
        min_score: People that are less sure are left out.
    """

    source: str = "auto"
    model: str = detector.REPO
    min_score: float = 0.5


@dataclass
class PointConfig:
    """Where the 2D keypoints come from.

    Attributes:
        source: ``vitpose``, a JSON file (COCO, AlphaPose) or a folder of OpenPose JSON files.
        model: The estimator, a ViTPose: owner/name on the hub, or a folder.
        min_score: Points that are less sure are left out.
        format: Points of OpenPose files, the scene's own or those of ``source``: coco17, body25 or body25b.
    """

    source: str = VITPOSE
    model: str = vitpose.REPO
    min_score: float = 0.3
    format: str | None = None


@dataclass
class DepthStageConfig:
    """Where depth comes from.

    Attributes:
        source: ``depth_pro`` or ``none``. Files that are in the scene already are kept in either case.
        model: Depth Pro: owner/name on the hub, a folder, or the depth_pro package's checkpoint (.pt).
    """

    source: str = "depth_pro"
    model: str = depth_pro.REPO


@dataclass
class MaskConfig:
    """Where masks come from.

    Attributes:
        source: ``auto`` (``sam`` where its files are on this machine, else ``none``), ``sam``, ``depth``
            (from the depth map's edge around the person) or ``none``. Without a mask a fit takes the depth
            map's edges for the outline as far as they go, which serves it better than a mask made of them.
        model: A SAM: owner/name on the hub, or a folder.
    """

    source: str = "auto"
    model: str = sam.REPO


@dataclass
class PrepareConfig:
    """Settings of ``depthfit prepare``.

    Attributes:
        init: What a fit will start from: ``keypoints`` (no regressor), ``tokenhmr`` or ``hmr2``.
        cameras: A cameras.json to put into the scene.
        folder: Where models that were fetched by hand are looked for.
        device: ``auto``, ``cpu`` or ``cuda``.
        batch: Images that go through a network together; ``null`` takes as many as fit a GPU.
        overwrite: Make again what an earlier run made. Files of others are kept.
        regressor: The regressor's files; its folder is ``folder`` unless named.
    """

    init: str = KEYPOINTS
    cameras: str | None = None
    folder: str = "models"
    device: str = "auto"
    batch: int | None = None
    overwrite: bool = False
    boxes: BoxConfig = field(default_factory=BoxConfig)
    keypoints: PointConfig = field(default_factory=PointConfig)
    depth: DepthStageConfig = field(default_factory=DepthStageConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    regressor: RegressorConfig = field(default_factory=RegressorConfig)

    def validate(self) -> None:
        """Refuse settings that cannot be used.

        Raises:
            InputError: Names the setting.
        """
        choices = {
            "init": (self.init, (KEYPOINTS, *REGRESSORS)),
            "depth.source": (self.depth.source, ("depth_pro", "none")),
            "masks.source": (self.masks.source, ("auto", "sam", "depth", "none")),
        }
        for name, (value, known) in choices.items():
            check_choice("prepare", name, value, known)
        if self.batch is not None and self.batch < 1:
            raise InputError("prepare", "batch", str(self.batch), "Use a whole number above zero, or null.")
