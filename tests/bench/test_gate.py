"""The gate's figures on people whose errors are known."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="the index is Parquet; pip install depthfit[pseudo]")

from depthfit.bench.gate import SHARES, curve, curve_table, gate_figures, gate_table, limit_at, orders
from depthfit.pseudo.config import GateConfig
from depthfit.pseudo.gate import LIMITS


def person(error: float, **measures: float) -> dict[str, Any]:
    """Somebody who passes every limit but those that are named."""
    row: dict[str, Any] = {limit.column: 1e3 if limit.least else 0.0 for limit in LIMITS}
    return {**row, "accepted": True, "error": error, "initial_error": 80.0, **measures}


PEOPLE = [person(10.0 * k, joint_sd=float(k), inside=100.0 - k) for k in range(1, 11)]


def test_a_measure_that_knows_the_error_sorts_by_it() -> None:
    wanted = [sum(10.0 * k for k in range(1, n + 1)) / n for n in (5, 6, 7, 8, 9, 10)]
    for name in ("joint_sd", "inside", "the true error"):
        assert curve(PEOPLE, orders()[name]) == pytest.approx(wanted)
    assert curve(PEOPLE, orders()["nothing (random)"]) == pytest.approx([55.0] * len(SHARES))
    assert limit_at(PEOPLE, orders()["joint_sd"])[0] == 5
    assert limit_at(PEOPLE, orders()["inside"])[0] == 95


def test_refused_people_are_never_kept() -> None:
    people = [{**row, "accepted": row["error"] < 75} for row in PEOPLE]
    assert curve(people, orders()["joint_sd"])[-1] == pytest.approx(40.0), "the 7 who are accepted"


def test_precision_and_recall_of_a_limit() -> None:
    figures = gate_figures(PEOPLE, GateConfig(max_joint_sd=9.0, max_focal_sd=None, max_prior=None))
    assert figures["kept"] == pytest.approx(0.9)
    assert figures["precision"] == pytest.approx(7 / 9), "two of the nine are no better than before"
    assert figures["recall"] == 1
    assert figures["lower_than_originals"] == pytest.approx(1 - 50 / 80)


def test_tables_have_a_row_for_each() -> None:
    assert all(f"| {name} |" in curve_table(PEOPLE) for name in orders())
    table = gate_table(PEOPLE, GateConfig(max_joint_sd=9.0))
    assert "| as configured | 90% | 50.0 mm |" in table
    assert "| without max_joint_sd=9 | 100% | 55.0 mm |" in table
