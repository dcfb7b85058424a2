"""Where labels come from: settings, versions, model files, evidence."""

from __future__ import annotations

import dataclasses
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines import foreign_betas
from depthfit import __version__
from depthfit.body.asset import ASSET
from depthfit.body.load import OPEN, find_body_file, load_body
from depthfit.data.pose_mixture import MIXTURE_FILE
from depthfit.errors import InputError
from depthfit.perception.depth_pro import find_depth_pro, hub_model
from depthfit.pseudo.config import NOT_RESULTS, PseudoConfig, fingerprint
from depthfit.pseudo.manifest import checksum
from depthfit.pseudo.outcome import evidence_used
from depthfit.tokens.load import OPEN_FILE

FILE = "provenance.json"


def provenance(
    source: str, kind: str, target: str, config: PseudoConfig, regressor: str | None
) -> dict[str, Any]:
    """What every shard carries. It depends on nothing that changes between runs of the same settings.

    ``regressor`` is what made the source's labels, where it says so.
    """
    left_out = None
    if regressor is not None and config.init == "label":
        left_out = foreign_betas(regressor, load_body(config.models.body, config.models.gender))
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
        "target_kind": target,
        "settings": settings,
        "fingerprint": fingerprint(config),
        "model_files": {name: checksum(path) for name, path in model_files(config).items()},
        "body": config.models.body if config.models.body == "open" else "smpl",
        "betas_left_out": left_out,
        "evidence_allowed": [*evidence_used(config.fit), *perceived],
    }


def of_shard(provenance: dict[str, Any], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A run's provenance with what one shard's people were fitted to: people by kinds of evidence."""
    used = Counter(str(row["evidence"]) for row in rows if row["evidence"])
    return {**provenance, "evidence_used": dict(sorted(used.items()))}


def model_files(config: PseudoConfig) -> dict[str, Path]:
    """Files that the labels depend on, by what they are for and their names. A depth network that is not on
    this machine is fetched: a run that goes on would find it there.

    Raises:
        InputError: One is not there.
    """
    models, perceive = config.models, config.perceive
    body = ASSET if models.body == OPEN else find_body_file(Path(models.body), models.gender)
    tokenizer = OPEN_FILE if models.tokenizer == "open" else Path(models.tokenizer)
    if not tokenizer.is_file():
        raise InputError(tokenizer, "models.tokenizer", "not found", "Check the path.")
    files = [("body", body), ("tokenizer", tokenizer)]
    if config.fit.pose.population != "none":
        files.append(("pose prior", MIXTURE_FILE))
    if perceive.depth == "depth_pro":
        found = find_depth_pro(perceive.model, Path(perceive.folder))
        path = hub_model(perceive.model).fetch(Path(perceive.folder)) if found is None else found[1]
        files += [
            ("depth network", p) for p in (sorted(path.glob("*.safetensors")) if path.is_dir() else [path])
        ]
    return {f"{use}: {path.name}": path for use, path in files}
