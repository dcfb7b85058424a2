"""The real network classes with tiny configurations, as files in the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depthfit.bench.random_models import FOLDERS, write_random_network

_DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 16,
    "mlp_ratio": 2,
}
DEPTH_SIDE = 64
TINY: dict[str, dict[str, Any]] = {
    "detector": {
        "id2label": {0: "person", 1: "cat"},
        "num_queries": 2,
        "d_model": 16,
        "encoder_hidden_dim": 16,
        "encoder_in_channels": [8, 8, 8],
        "encoder_ffn_dim": 16,
        "encoder_attention_heads": 2,
        "decoder_in_channels": [16, 16, 16],
        "decoder_ffn_dim": 16,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 8, 8, 8],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage2", "stage3", "stage4"],
        },
        "processor": {"size": {"height": 64, "width": 64}},
    },
    "keypoints": {
        "num_labels": 17,
        "use_simple_decoder": False,
        "backbone_config": {
            "model_type": "vitpose_backbone",
            "image_size": [64, 48],
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "part_features": 4,
            "out_indices": [2],
        },
        "processor": {"size": {"height": 64, "width": 48}},
    },
    "masks": {
        "vision_config": {
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "window_size": 2,
            "global_attn_indexes": [1],
            "num_pos_feats": 8,
            "mlp_dim": 16,
        },
        "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "mask_input_channels": 4},
        "mask_decoder_config": {
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
        "processor": {
            "size": {"longest_edge": 64},
            "pad_size": {"height": 64, "width": 64},
        },
    },
    "depth": {
        "patch_size": 16,
        "fusion_hidden_size": 8,
        "intermediate_hook_ids": [1, 0],
        "intermediate_feature_dims": [8, 8],
        "scaled_images_feature_dims": [16, 16, 8],
        "num_fov_head_layers": 1,
        "use_fov_model": True,
        **{f"{name}_model_config": _DINOV2 for name in ("image", "patch", "fov")},
    },
}


def write_tiny(models: Path, *stages: str, **changes: Any) -> None:
    """Write the tiny networks of some stages (all unless named) into the models folder."""
    for stage in stages or TINY:
        write_random_network(stage, models / FOLDERS[stage], {**TINY[stage], **changes})
