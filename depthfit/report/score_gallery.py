"""A page of the people on whom the fit did worst."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from depthfit.evaluation.score import Scores
from depthfit.report.score_tables import METRICS, Stamp

WORST = 20
RANKED_BY = ("mpjpe_mm", "reprojection")
_STYLE = (
    "body{font-family:sans-serif;margin:1em}figure{display:inline-block;width:46em;max-width:100%;margin:.5em}"
    "img{max-width:100%}figcaption{font-size:.9em}"
)


def gallery_html(scores: Scores, stamp: Stamp, links: Sequence[str]) -> str:
    """The ``WORST`` people by MPJPE after refinement, and those whose MPJPE grew most; by reprojection where
    no MPJPE is known.

    Args:
        links: Overlay of each row, relative to the page; empty = none was drawn.
    """
    by = RANKED_BY[0] if RANKED_BY[0] in scores.summary else RANKED_BY[1]
    refined = np.array([float(row[by]) for row in scores.rows])
    grown = refined - np.array([float(row[f"initial_{by}"]) for row in scores.rows])
    title = f"Worst fits: {stamp.dataset}, protocol {stamp.protocol}"
    stamped = "".join(
        f"<li>{html.escape(k.replace('_', ' '))}: {html.escape(str(v))}</li>"
        for k, v in asdict(stamp).items()
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1><ul>{stamped}</ul>",
            "<h2>Largest error after refinement</h2>",
            *_figures(scores, links, by, _largest(refined)),
            "<h2>Made worse by most</h2>",
            *_figures(scores, links, by, [i for i in _largest(grown) if grown[i] > 0]),
            "</body></html>",
            "",
        ]
    )


def _largest(values: np.ndarray) -> list[int]:
    """Up to ``WORST`` rows with the largest finite values, largest first."""
    known = np.flatnonzero(np.isfinite(values))
    return [int(i) for i in known[np.argsort(-values[known], kind="stable")][:WORST]]


def _figures(scores: Scores, links: Sequence[str], by: str, chosen: Sequence[int]) -> list[str]:
    if not chosen:
        return ["<p>Nobody.</p>"]
    return [_figure(scores.rows[i], links[i], by) for i in chosen]


def _figure(row: dict[str, Any], link: str, by: str) -> str:
    name = html.escape(f"{row['imgname']} #{row['person']}")
    picture = "<p>No overlay was drawn.</p>"
    if link:
        target = html.escape(link, quote=True)
        picture = f'<a href="{target}"><img src="{target}" alt="overlay of {name}" loading="lazy"></a>'
    status = html.escape(str(row.get("status", "")))
    heading, unit, factor = METRICS[by]
    before, after = (row[prefix + by] * factor for prefix in ("initial_", ""))
    text = f"{name}: {heading} {before:.1f} -> {after:.1f} {unit}, {status}"
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"
