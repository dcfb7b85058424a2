"""Parts of a benchmark that are fitted together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from depthfit.bench import pool
from depthfit.bench.splits import sweep_parts


class _Bench:
    """Reads two images of 1 and 2 people from every scene and fits each person to a number of their own."""

    def __init__(self) -> None:
        self.images = 0

    def read(self, scene: Any, names: Sequence[str]) -> list[Any]:
        found = []
        for name, people in (("00000.jpg", 1), ("00001.jpg", 2)):
            path = SimpleNamespace(name=name)
            found.append(
                SimpleNamespace(
                    evidence=SimpleNamespace(path=path), people=[self.images + 0.1 * k for k in range(people)]
                )
            )
            self.images += 1
        return found

    def fit(self, variant: Any, images: Sequence[Any]) -> tuple[list[dict[str, Any]], float]:
        rows = [{"imgname": i.evidence.path.name, "mark": person} for i in images for person in i.people]
        return rows, 0.0


def test_images_of_one_name_in_two_parts_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (
        parts[0] for parts in list(sweep_parts(["depth_scale"], 2, 1)["depth_scale"].values())[:2]
    )
    saved: dict[str, list[float]] = {}
    monkeypatch.setattr(pool, "_workbench", lambda job: _Bench())
    monkeypatch.setattr(pool, "read_scene", lambda *_: SimpleNamespace(names=[]))
    monkeypatch.setattr(
        pool, "write_rows", lambda path, rows, _: saved.update({path.parent.name: [r["mark"] for r in rows]})
    )
    pool._fit([first, second], ["joint"], pool.Job(str(tmp_path)))
    assert np.allclose(saved[first.name], [0.0, 1.0, 1.1])
    assert np.allclose(saved[second.name], [2.0, 3.0, 3.1])
