"""What a run over a scene did: summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MEDIANS = ("reprojection", "initial_reprojection", "depth_residual", "focal", "distance")


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes:
        rows: Rows of fits.npz, also those of an earlier run.
        skipped: Images that could not be used, with the reason.
        summary: What summary.json holds.
    """

    rows: list[dict[str, Any]]
    skipped: dict[str, str]
    summary: dict[str, Any]


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of people by verdict, and medians over those of whom a number is known."""
    return {
        "people": len(rows),
        "accepted": sum(bool(row["accepted"]) for row in rows),
        "status": dict(Counter(str(row["status"]) for row in rows)),
        "median": {key: _median(rows, key) for key in MEDIANS},
    }


def _median(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = np.array([row[key] for row in rows], dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None
