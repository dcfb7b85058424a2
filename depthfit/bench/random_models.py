"""Networks of ``transformers`` with random weights, in memory or as files in the hub's layout.

Their last biases are set so that the stages after them have something to do: the detector finds as many
people as it has queries, keypoints are believed, and depth and field of view are plausible.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from depthfit.perception import depth_pro, detector, sam, vitpose
from depthfit.perception.detector import PERSON
from depthfit.perception.hub import PROCESSOR, load_processor, processor_class, transformers_class

FOV_DEGREES, INVERSE_DEPTH, SCORE_LOGIT, HEATMAP = 50.0, 0.3, 4.0, 0.6
DAMPING = 0.01
"""Of the weights of depth's last layers, whose random answers would be no field of view at full size."""
QUERIES = 2
"""People that a random detector finds; a real one has 300 queries, most of which find nothing."""
NETWORKS: dict[str, tuple[str, str, str | None]] = {
    "detector": ("RTDetrConfig", "RTDetrForObjectDetection", "RTDetrImageProcessor"),
    "keypoints": ("VitPoseConfig", "VitPoseForPoseEstimation", "VitPoseImageProcessor"),
    "masks": ("SamConfig", "SamModel", "SamImageProcessor"),
    "depth": ("DepthProConfig", "DepthProForDepthEstimation", None),
}
"""Of each stage: configuration, network, and image processor."""
FOLDERS = {
    stage: repo.rsplit("/", 1)[-1]
    for stage, repo in (
        ("detector", detector.REPO),
        ("keypoints", vitpose.REPO),
        ("masks", sam.REPO),
        ("depth", depth_pro.REPO),
    )
}
"""Where ``depthfit prepare`` looks for each network among models that were fetched by hand."""
_DINOV2_LARGE = {
    "model_type": "dinov2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 16,
    "image_size": 384,
}


def full_size(stage: str) -> dict[str, Any]:
    """Settings of the network that ``depthfit prepare`` uses by default.

    Depth Pro has three ViT-L; ViTPose++ huge has ViT-H with 6 experts; SAM has ViT-H.
    """
    if stage == "detector":
        names = {0: PERSON, **{k: f"class {k}" for k in range(1, 80)}}
        return {"num_queries": QUERIES, "id2label": names}
    if stage == "keypoints":
        backbone = {
            "model_type": "vitpose_backbone",
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "num_experts": 6,
            "part_features": 320,
            "out_indices": [32],
        }
        return {"backbone_config": backbone, "num_labels": 17, "use_simple_decoder": False}
    if stage == "masks":
        vision = {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "global_attn_indexes": [7, 15, 23, 31],
            # Its default, 1e-10, gives products so small that a CPU computes them many times slower.
            "initializer_range": 0.02,
        }
        return {"vision_config": vision}
    encoders = {f"{name}_model_config": dict(_DINOV2_LARGE) for name in ("image", "patch", "fov")}
    return {"use_fov_model": True, **encoders}


def random_network(
    stage: str, settings: dict[str, Any], seed: int = 0, device: torch.device | None = None
) -> Any:
    """The network of a stage, one of ``NETWORKS``, in evaluation mode on a device, the CPU unless given.

    A GPU draws the weights of a full-size network in a second, a CPU in half a minute.
    """
    config_name, network_name, _ = NETWORKS[stage]
    torch.manual_seed(seed)
    config = transformers_class(config_name)(**_configs(settings))
    with torch.device(device or "cpu"):
        network = transformers_class(network_name)(config).eval().requires_grad_(False)
    if stage == "depth":
        for layer, bias in (
            (network.fov_model.head.layers[-1], FOV_DEGREES),
            (network.head.layers[4], INVERSE_DEPTH),
        ):
            layer.bias.fill_(bias)
            layer.weight.mul_(DAMPING)
    elif stage == "keypoints":
        network.head.conv.bias.fill_(HEATMAP)
    elif stage == "detector":
        for layer in network.model.decoder.class_embed:
            layer.bias[0] = SCORE_LOGIT
    return network


def write_random_network(
    stage: str, folder: Path, settings: dict[str, Any], seed: int = 0, device: torch.device | None = None
) -> None:
    """Files of :func:`random_network` in the hub's layout; ``processor`` in settings is the processor's."""
    settings = dict(settings)
    processor_settings = settings.pop("processor", {})
    random_network(stage, settings, seed, device).save_pretrained(folder)
    processor_name = NETWORKS[stage][2]
    if processor_name is not None:
        processor = processor_class(processor_name)(**processor_settings)
        processor.save_pretrained(folder)
        assert (folder / PROCESSOR).is_file()
        load_processor(processor_name, folder)


def _configs(settings: dict[str, Any]) -> dict[str, Any]:
    """A copy: ``transformers`` changes the dictionaries that it is given."""
    return copy.deepcopy(settings)
