"""report.html: outcomes, stages, memory, and people to look at."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from depthfit import so3
from depthfit.atomic import atomic_path
from depthfit.body.load import load_body
from depthfit.body.model import Body
from depthfit.camera import project
from depthfit.errors import InputError
from depthfit.joints import KEYPOINTS
from depthfit.pseudo.layout import cached_plan
from depthfit.pseudo.observe import Receipt, memory_series
from depthfit.pseudo.part import read_index
from depthfit.pseudo.records import REFINED
from depthfit.pseudo.stages import Job
from depthfit.report.bodies import PersonView
from depthfit.report.overlay import draw_overlay
from depthfit.report.summary import PersonSummary

STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border:1px solid #ccc;padding:.25em .7em;text-align:right}img{max-width:100%;margin:.4em 0}"
)
MEASURES = (
    ("reprojection", "reprojection", "% of the person's size"),
    ("depth_residual", "depth residual", "% of the distance"),
    ("joint_sd", "joint sd", "mm"),
    ("focal_sd", "focal sd", "%"),
    ("prior", "distance to the start", "sigmas"),
)
"""Column, words, unit, of what is said of a person."""
JPEG_QUALITY = 80
CROP_MARGIN, CROP_LEAST = 0.5, 64
"""A picture shows this much around a person, in the person's longer sides, and at least so many px."""
LABEL, FRAME = 'font-size="11" fill="#777"', 'style="border:1px solid #ccc"'
CURVE_POINTS = 200
"""Of the memory's curve, for each process."""
Point = tuple[float, int, int]
MEMORY_SHARDS = 200
"""Shards whose rows are looked through for people to show; spread over all."""


def write_report(
    job: Job, units: Sequence[str], summary: dict[str, Any], receipts: Sequence[Receipt], path: Path
) -> None:
    """Write the page and its pictures (``report/``)."""
    parts = [
        "<h1>depthfit pseudo-gt</h1>",
        f"<p>{summary['people']} people, {summary['images']} images, {summary['shards']} shards.</p>",
        _table(["outcome", "people"], list(summary["outcomes"].items())),
        "<h2>Reasons</h2>",
        _table(["reason", "people"], list(summary["reasons"].items()))
        if summary["reasons"]
        else "<p>None.</p>",
        "<h2>Stages</h2>",
        _stages(summary),
        "<h2>Memory of the fitting processes</h2>",
        _memory(receipts),
    ]
    for title, people in chosen(job, units).items():
        parts.append(f"<h2>{title}</h2>")
        if not people:
            parts.append("<p>Nobody.</p>")
        for n, (unit, row) in enumerate(people):
            name = f"report/{title.split()[0].lower()}_{n:02d}.jpg"
            what = f"{row['key']} #{row['person']}: {row['outcome']} {row['reason']}"
            measures = ", ".join(f"{text} {row[k]:.3g} {unit}" for k, text, unit in MEASURES)
            parts.append(f"<p>{html.escape(what)} ({measures})</p>")
            parts.append(_picture(job, unit, row, path.parent / name, name))
    with atomic_path(path) as temporary:
        body = "\n".join(parts)
        temporary.write_text(
            f"<!doctype html><meta charset=utf-8><title>pseudo-gt</title><style>{STYLE}</style>{body}\n"
        )


def chosen(job: Job, units: Sequence[str]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The refined people with the largest reprojection error, and a random sample of all who were fitted."""
    count, rng = job.config.report_people, np.random.default_rng(job.config.seed)
    picked = rng.permutation(len(units))[:MEMORY_SHARDS]
    fitted = [
        (units[n], row)
        for n in sorted(picked)
        for row in read_index(job.layout.index(units[n]))
        if np.isfinite(row["reprojection"])
    ]
    refined = [pair for pair in fitted if pair[1]["outcome"] == REFINED]
    worst = sorted(refined, key=lambda pair: -pair[1]["reprojection"])[:count]
    sample = [fitted[n] for n in rng.permutation(len(fitted))[:count]]
    return {"Worst of the refined people": worst, "Random people": sample}


def _picture(job: Job, unit: str, row: dict[str, Any], path: Path, name: str) -> str:
    try:
        pixels = job.source.pixels(cached_plan(job.layout.plan(unit)), str(row["key"]))
    except InputError as error:
        return f"<p>no picture: {html.escape(str(error))}</p>"
    body = load_body(job.config.models.body, job.config.models.gender)
    views = [_view(body, row, prefix) for prefix in ("initial_", "")]
    left, top, right, bottom = _around(views[1], pixels.shape[:2])
    pixels, views = pixels[top:bottom, left:right], [_shifted(view, left, top) for view in views]
    summary = PersonSummary(
        name=f"{row['key']} #{row['person']}",
        status=str(row["status"]),
        accepted=bool(row["accepted"]),
        focal=(row["initial_focal"], row["focal"]),
        focal_std_log=row["focal_sd"] / 100,
        distance=(float(row["initial_transl"][2]), float(row["transl"][2])),
        distance_std_log=row["distance_sd"] / 100,
    )
    picture = draw_overlay(pixels, body.faces, [views[0]], [views[1]], [summary], KEYPOINTS)
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not ok:
        raise OSError(f"OpenCV could not encode {path}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return f'<img src="{name}" alt="{html.escape(str(row["key"]))}">'


def _view(body: Body, row: dict[str, Any], prefix: str) -> PersonView:
    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(row[name], dtype=torch.float32)

    turns = so3.exp(tensor(f"{prefix}pose").reshape(1, 24, 3))
    betas, transl = tensor(f"{prefix}betas")[None], tensor(f"{prefix}transl")
    skeleton, vertices = body.forward(turns[:, 0], turns[:, 1:], betas)
    focal, (x, y) = row[f"{prefix}focal"], row["center"]
    K = torch.tensor([[focal, 0, x], [0, focal, y], [0, 0, 1]], dtype=torch.float32)
    detected = tensor("detected")
    points = project(body.keypoints(skeleton, vertices)[0] + transl, K)
    return PersonView(vertices[0] + transl, K, points, detected[:, :2], detected[:, 2])


def _around(view: PersonView, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """px left, top, right, bottom of the part of an image of ``size`` (H, W) that shows a person."""
    points = np.concatenate([view.detected[view.confidence > 0].numpy(), view.projected.numpy()])
    height, width = size
    points = points.clip(0, [width - 1, height - 1])
    low, high = points.min(0), points.max(0)
    margin = max(CROP_MARGIN * float((high - low).max()), CROP_LEAST / 2)
    (left, top), (right, bottom) = np.maximum(low - margin, 0), high + margin + 1
    return int(left), int(top), min(int(right), width), min(int(bottom), height)


def _shifted(view: PersonView, left: int, top: int) -> PersonView:
    """A view in an image of which so many columns and rows were cut off."""
    offset = torch.tensor([left, top], dtype=torch.float32)
    K = view.K.clone()
    K[:2, 2] -= offset
    return replace(view, K=K, projected=view.projected - offset, detected=view.detected - offset)


def _stages(summary: dict[str, Any]) -> str:
    rows = []
    for name, figures in summary["stages"].items():
        queue = summary["queues"].get(name)
        waiting = f"{queue['mean']:.1f} / {queue['most']:.0f}" if queue else ""
        rows.append(
            (
                name,
                f"{figures['processes']:.0f}",
                f"{figures['s_per_person']:.4f}",
                f"{figures['people_per_s']:.2f}",
                waiting,
            )
        )
    return _table(["stage", "processes", "s a person", "people/s", "chunks waiting, mean / most"], rows)


def _memory(receipts: Sequence[Receipt]) -> str:
    """Peak memory against people, a line a process, as SVG."""
    series = {process: _thinned(points) for process, points in memory_series(receipts).items()}
    if not series:
        return "<p>Nothing was fitted.</p>"
    people = max(1, *(points[-1][1] for points in series.values()))
    top = 1.2 * max(points[-1][2] for points in series.values())
    lines = []
    for process, points in series.items():
        places = [(600 * n / people, 200 - 200 * m / top) for _, n, m in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        title = f"<title>{html.escape(process)}</title>"
        lines.append(f'<polyline fill="none" stroke="#27c" points="{path}">{title}</polyline>')
        # A run of one chunk has a point and no line.
        x, y = places[-1]
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#27c">{title}</circle>')
    words = ((100, f"{top / 2 / 2**30:.2f} GiB"), (200, f"0 GiB; {people} people at the right end"))
    marks = "".join(
        f'<line x2="600" y1="{y}" y2="{y}" stroke="#ddd"/><text x="4" y="{y - 4}" {LABEL}>{text}</text>'
        for y, text in words
    )
    svg = f'<svg viewBox="0 0 600 200" width="600" {FRAME}>{marks}{"".join(lines)}</svg>'
    caption = "Peak memory over people done, a line a process: flat where nothing is kept."
    return f"{svg}<p>{caption}</p><script type=application/json>{json.dumps(series)}</script>"


def _thinned(points: Sequence[Point]) -> list[Point]:
    """A curve of at most so many points, the last one among them: a big run has a million chunks."""
    step = -(-len(points) // CURVE_POINTS)
    return [*points[:-1:step], points[-1]]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(c))}' for c in row)}" for row in rows)
    return f"<table><tr>{top}{body}</table>"
