"""``depthfit bench gate``: does the gate know which refined labels are good?

Synthetic people go through ``pseudo-gt`` with the gate open. Every person's label error is then known,
before and after, and each measure of the gate can be asked: keep the best share of the people by it, and how
large is the error of what is kept?
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthfit import so3
from depthfit.atomic import atomic_path
from depthfit.bench.accuracy import bench_scene
from depthfit.bench.scenes import ensure_scene
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.evaluation.metrics import mpjpe
from depthfit.pseudo import PseudoConfig, run_pseudo_gt
from depthfit.pseudo.config import GateConfig
from depthfit.pseudo.gate import LIMITS, doubts
from depthfit.pseudo.part import read_index
from depthfit.synth import SynthConfig

QUICK_IMAGES = 8
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
Row = dict[str, Any]


@dataclass
class GateBenchConfig:
    """Settings of ``depthfit bench gate``.

    Attributes:
        out: Folder of scenes and runs.
        images: Images of each seed, one person each.
        seeds: Of the scenes; limits were chosen on seeds 100 and 101.
        quick: 8 images only.
        scene: Settings of the scenes.
        pseudo: Settings of the run; its gate is the one that is judged.
    """

    out: str = "output/bench"
    images: int = 64
    seeds: list[int] = field(default_factory=lambda: [1])
    quick: bool = False
    scene: SynthConfig = field(default_factory=bench_scene)
    pseudo: PseudoConfig = field(default_factory=PseudoConfig)


def run_gate(config: GateBenchConfig) -> str:
    """Make, refine, judge; returns Markdown, also written to ``out`` beside a JSON file."""
    people = [row for seed in config.seeds for row in _people(config, seed)]
    text = "\n\n".join([curve_table(people), gate_table(people, config.pseudo.gate)])
    for suffix, content in (
        (".md", text),
        (".json", json.dumps(figures(people, config.pseudo.gate), indent=2)),
    ):
        with atomic_path(Path(config.out) / f"gate{suffix}") as temporary:
            temporary.write_text(content + "\n")
    return text


def _people(config: GateBenchConfig, seed: int) -> list[Row]:
    """Rows of a seed's people with ``error`` and ``initial_error``, mm."""
    images = QUICK_IMAGES if config.quick else config.images
    scene = replace(config.scene, images=images, seed=seed, people_weights=(1.0,))
    folder = ensure_scene(scene, Path(config.out) / f"scene_{seed}_{images}")
    open_gate = replace(
        config.pseudo,
        gate=GateConfig(use=False),
        keypoint_format=config.scene.keypoint_format,
        report_people=0,
    )
    out = Path(config.out) / f"gate_{seed}_{images}"
    run_pseudo_gt(str(folder), str(out), open_gate)
    rows = [row for path in sorted((out / "index").glob("*.parquet")) for row in read_index(path)]
    return label_errors(
        [row for row in rows if np.isfinite(row["reprojection"])], folder / "ground_truth.npz"
    )


def label_errors(rows: Sequence[Row], ground_truth: Path) -> list[Row]:
    """Rows with the mean error, mm, of the 24 joints about the pelvis: ``error`` and ``initial_error``."""
    with np.load(ground_truth) as data:
        keys = [(str(n), int(p)) for n, p in zip(data["imgname"], data["person"], strict=True)]
        truth = dict(zip(keys, data["joints"], strict=True))
    body = load_body()
    wanted = np.stack([truth[str(row["key"]), int(row["person"])] for row in rows])
    out: dict[str, np.ndarray] = {}
    for name in ("", "initial_"):
        out[f"{name}error"] = mpjpe(_joints(body, rows, name), wanted)
    return [{**row, **{name: float(values[n]) for name, values in out.items()}} for n, row in enumerate(rows)]


def _joints(body: Body, rows: Sequence[Row], prefix: str) -> np.ndarray:
    pose = torch.from_numpy(np.stack([row[f"{prefix}pose"] for row in rows])).float().reshape(-1, 24, 3)
    betas = torch.from_numpy(np.stack([row[f"{prefix}betas"] for row in rows])).float()
    turns = so3.exp(pose)
    return body.skeleton(turns[:, 0], turns[:, 1:], betas).position.numpy()


def orders() -> dict[str, Callable[[Row], float]]:
    """What people can be sorted by, the best first: each measure of the gate, and the truth as the bound."""
    by: dict[str, Callable[[Row], float]] = {}
    for limit in LIMITS:
        sign = -1.0 if limit.least else 1.0
        by[limit.column] = lambda row, column=limit.column, sign=sign: sign * float(row[column])  # type: ignore[misc]
    by["nothing (random)"] = lambda row: 0.0
    by["the true error"] = lambda row: float(row["error"])
    return by


def curve(people: Sequence[Row], order: Callable[[Row], float]) -> list[float]:
    """Mean label error, mm, of the best ``SHARES`` of the accepted people, of all people's number."""
    accepted = [row for row in people if row["accepted"]]
    values = np.array([order(row) for row in accepted])
    errors = np.array([row["error"] for row in accepted])
    out = []
    for share in SHARES:
        count = min(max(round(share * len(people)), 1), len(accepted))
        # People of one value are as good as each other: each counts with the chance to be among the kept.
        edge = np.sort(values)[count - 1]
        below, at = values < edge, values == edge
        weight = below + at * (count - below.sum()) / max(at.sum(), 1)
        out.append(float((errors * weight).sum() / weight.sum()))
    return out


def limit_at(people: Sequence[Row], order: Callable[[Row], float]) -> list[float]:
    """The limits of a measure that keep ``SHARES`` of the people."""
    values = sorted(abs(order(row)) for row in people if row["accepted"])
    if order(people[0]) < 0:
        values.reverse()
    return [values[min(max(round(share * len(people)), 1), len(values)) - 1] for share in SHARES]


def gate_figures(people: Sequence[Row], gate: GateConfig) -> dict[str, float]:
    """Share kept, errors, and how often a kept label is better than the original.

    ``precision`` is the share of kept people whose label got better, ``recall`` the share of those who got
    better that is kept.
    """
    kept = [row for row in people if row["accepted"] and not doubts(row, gate)]
    better = [row for row in people if row["error"] < row["initial_error"]]
    right = [row for row in kept if row["error"] < row["initial_error"]]

    def mean(rows: Sequence[Row], name: str) -> float:
        return float(np.mean([row[name] for row in rows])) if rows else float("nan")

    return {
        "people": float(len(people)),
        "kept": len(kept) / max(len(people), 1),
        "error_kept": mean(kept, "error"),
        "original_error_of_kept": mean(kept, "initial_error"),
        "original_error_of_all": mean(people, "initial_error"),
        "error_of_all": mean(people, "error"),
        "lower_than_originals": 1 - mean(kept, "error") / mean(people, "initial_error"),
        "lower_than_own_original": 1 - mean(kept, "error") / mean(kept, "initial_error"),
        "precision": len(right) / max(len(kept), 1),
        "recall": len(right) / max(len(better), 1),
    }


def figures(people: Sequence[Row], gate: GateConfig) -> dict[str, Any]:
    """All numbers of the tables."""
    return {
        "shares": SHARES,
        "curves": {name: curve(people, order) for name, order in orders().items()},
        "limits": {name: limit_at(people, order) for name, order in orders().items()},
        "gate": gate_figures(people, gate),
    }


def curve_table(people: Sequence[Row]) -> str:
    """Markdown: mean label error against the share kept, a row for each measure."""
    head = "| kept by | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
    lines = [head, "|---|" + "---|" * len(SHARES)]
    for name, order in orders().items():
        pairs = zip(curve(people, order), limit_at(people, order), strict=True)
        lines.append(f"| {name} | " + " | ".join(f"{mm:.1f} ({limit:.3g})" for mm, limit in pairs) + " |")
    mean = np.mean([row["initial_error"] for row in people])
    title = (
        f"Mean label error, mm, of the kept (and the limit that keeps so many); {len(people)} people, "
        f"originals {mean:.1f} mm."
    )
    return "\n".join([title, "", *lines])


def gate_table(people: Sequence[Row], gate: GateConfig) -> str:
    """Markdown: the gate as it stands, and with one limit lifted at a time."""
    names = [limit.setting for limit in LIMITS if getattr(gate, limit.setting) is not None]
    gates = {"as configured": gate, "none": GateConfig(use=False)}
    for name in names:
        off: Any = 0 if name.startswith("min_") else None
        gates[f"without {name}={getattr(gate, name):g}"] = replace(gate, **{name: off})
    lines = [
        "| gate | kept | error of the kept | their originals | under all originals | under their own | "
        "kept that got better |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, limits in gates.items():
        f = gate_figures(people, limits)
        lines.append(
            f"| {name} | {f['kept']:.0%} | {f['error_kept']:.1f} mm | {f['original_error_of_kept']:.1f} mm | "
            f"{f['lower_than_originals']:.0%} | {f['lower_than_own_original']:.0%} | {f['precision']:.0%} |"
        )
    return "\n".join(lines)
