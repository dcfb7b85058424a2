"""The before-and-after table of a run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from depthfit.report.summary import PersonSummary, interval


def before_after_table(rows: Sequence[PersonSummary], title: str = "Prediction -> refined") -> Table:
    """One row a person; depth residual and joint error have a column where any row knows them.

    Intervals are one posterior standard deviation. Print it with ``rich.console.Console().print``.
    """
    with_depth = any(row.depth_residual is not None for row in rows)
    with_truth = any(row.mpjpe is not None for row in rows)
    table = Table(title=title, title_justify="left")
    table.add_column("person", overflow="fold")
    table.add_column("status")
    for heading in ("focal px", "distance m", "reprojection px"):
        table.add_column(heading, justify="right")
    if with_depth:
        table.add_column("depth residual %", justify="right")
    if with_truth:
        table.add_column("MPJPE mm", justify="right")
    for row in rows:
        cells: list[str | Text] = [
            row.name,
            Text(
                row.status if row.accepted else f"refused: {row.status}",
                "green" if row.accepted else "yellow",
            ),
            _change(row.focal, "{:.0f}", interval(row.focal[1], row.focal_std_log)),
            _change(row.distance, "{:.2f}", interval(row.distance[1], row.distance_std_log)),
            _change(row.reprojection, "{:.1f}"),
        ]
        if with_depth:
            percent = (
                None
                if row.depth_residual is None
                else (100 * row.depth_residual[0], 100 * row.depth_residual[1])
            )
            cells.append(_change(percent, "{:.1f}"))
        if with_truth:
            cells.append(_change(row.mpjpe, "{:.1f}"))
        table.add_row(*cells)
    return table


def _change(pair: tuple[float, float] | None, form: str, half_width: float | None = None) -> str:
    if pair is None:
        return "-"
    text = f"{form.format(pair[0])} -> {form.format(pair[1])}"
    return text if half_width is None else f"{text} ± {form.format(half_width)}"
