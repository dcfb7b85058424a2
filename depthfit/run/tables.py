"""Rows of fits.npz as lines of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depthfit.report.summary import PersonSummary


def summaries(
    rows: Sequence[dict[str, Any]], mpjpe: dict[tuple[str, int], tuple[float, float]] | None = None
) -> list[PersonSummary]:
    """Summaries of rows.

    Args:
        mpjpe: mm of prediction and fit by (image stem, person), where the truth is known.
    """
    out = []
    for row in rows:
        stem, person = Path(str(row["imgname"])).stem, int(row["person"])
        out.append(
            PersonSummary(
                name=f"{stem} #{person}",
                status=str(row["status"]),
                accepted=bool(row["accepted"]),
                focal=(float(row["initial_focal"]), float(row["focal"])),
                focal_std_log=_known(row["focal_std_log"]),
                distance=(float(row["initial_distance"]), float(row["distance"])),
                distance_std_log=_known(row["distance_std_log"]),
                reprojection=_pair(row, "reprojection"),
                depth_residual=_pair(row, "depth_residual"),
                mpjpe=None if mpjpe is None else mpjpe.get((stem, person)),
            )
        )
    return out


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _pair(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    pair = (float(row[f"initial_{name}"]), float(row[name]))
    return pair if np.isfinite(pair).all() and any(pair) else None
