"""The summary table as it is printed."""

from __future__ import annotations

import io

from rich.console import Console

from depthfit.report import PersonSummary, before_after_table


def printed(*rows: PersonSummary) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(before_after_table(rows))
    return console.export_text()


def test_numbers_and_intervals() -> None:
    row = PersonSummary("a #1", "converged", True, (25000.0, 1200.0), 0.05, (60.0, 3.0), 0.1, (31.24, 6.0))
    text = printed(row)
    assert "25000 -> 1200 ± 60" in text
    assert "60.00 -> 3.00 ± 0.30" in text
    assert "31.2 -> 6.0" in text
    assert "MPJPE" not in text
    assert "depth" not in text


def test_columns_appear_where_any_row_knows_them() -> None:
    known = PersonSummary(
        "a #1",
        "converged",
        True,
        (25000.0, 1200.0),
        None,
        (60.0, 3.0),
        None,
        None,
        (0.314, 0.02),
        (94.0, 31.0),
    )
    unknown = PersonSummary("b #1", "no evidence", False, (25000.0, 1200.0), None, (60.0, 3.0), None)
    text = printed(known, unknown)
    assert "31.4 -> 2.0" in text
    assert "94.0 -> 31.0" in text
    assert "±" not in text
    assert "refused: no evidence" in text
