"""Where labels come from: settings, versions, model files, evidence."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthfit import __version__
from depthfit.body.asset import ASSET
from depthfit.perception.depth_pro import find_depth_pro
from depthfit.pseudo.config import NOT_RESULTS, PseudoConfig, fingerprint
from depthfit.pseudo.manifest import checksum
from depthfit.pseudo.outcome import evidence_used
from depthfit.tokens.load import OPEN_FILE

FILE = "provenance.json"


def provenance(source: str, kind: str, config: PseudoConfig) -> dict[str, Any]:
    """What every shard carries. It depends on nothing that changes between runs of the same settings."""
    settings = dataclasses.asdict(config)
    for name in NOT_RESULTS:
        del settings[name]
    perceived = [] if config.perceive.depth == "none" else [f"perceived: {config.perceive.depth}"]
    return {
        "depthfit": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "source": Path(source).name,
        "source_kind": kind,
        "settings": settings,
        "fingerprint": fingerprint(config),
        "model_files": {path.name: checksum(path) for path in model_files(config)},
        "body": config.models.body if config.models.body == "open" else "smpl",
        "evidence": [*evidence_used(config.fit), *perceived],
    }


def model_files(config: PseudoConfig) -> list[Path]:
    """Files of the body, the tokenizer and, where it is used and here, of the depth network."""
    models, perceive = config.models, config.perceive
    body = ASSET if models.body == "open" else Path(models.body)
    if body.is_dir():
        body = next(iter(sorted(body.glob(f"SMPL_{models.gender.upper()}.*"))))
    files = [body, OPEN_FILE if models.tokenizer == "open" else Path(models.tokenizer)]
    found = None
    if perceive.depth == "depth_pro":
        found = find_depth_pro(perceive.model, Path(perceive.folder))
    if found is None:
        return files
    return [*files, *(sorted(found[1].glob("*.safetensors")) if found[1].is_dir() else [found[1]])]
