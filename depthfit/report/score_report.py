"""All files of one scoring: tables, plots, rows with links to overlays, and the page of the worst."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from depthfit import __version__
from depthfit.atomic import atomic_path
from depthfit.evaluation.published import PublishedRow
from depthfit.evaluation.score import Scores
from depthfit.report.score_gallery import gallery_html
from depthfit.report.score_plots import has_matplotlib, write_plots
from depthfit.report.score_tables import Stamp, markdown_report, rows_csv, table_csv

_log = logging.getLogger(__name__)
UNKNOWN = "not recorded"
Overlay = Callable[[str], Path | None]
"""Image name -> its overlay, where one was drawn."""


def write_report(
    folder: Path,
    scores: Scores,
    stamp: Stamp,
    overlay: Overlay,
    references: Sequence[PublishedRow] = (),
    own: Mapping[str, Stamp] | None = None,
    remark: str = "",
) -> Path:
    """Write table.md, table.csv, scores.json, rows.csv, worst.html and plots/ into ``folder``.

    Args:
        own: The stamp of each image's fit, where the scores are of several; ``stamp`` is then all of theirs.
        remark: Why there are no ``references``.

    Returns:
        The folder.
    """
    links = [_link(folder, overlay(str(row["imgname"]))) for row in scores.rows]
    stamps = [stamp if own is None else own[str(row["imgname"])] for row in scores.rows]
    content = {
        "stamp": asdict(stamp),
        "summary": scores.summary,
        "published": [asdict(row) for row in references],
    }
    texts = {
        "table.md": markdown_report(scores, stamp, references, remark),
        "table.csv": table_csv(scores, stamp, references),
        "rows.csv": rows_csv(scores, stamps, links),
        "worst.html": gallery_html(scores, stamp, links),
        "scores.json": json.dumps(jsonable(content), indent=2) + "\n",
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text)
    if has_matplotlib():
        write_plots(folder / "plots", scores, stamp)
    else:
        _log.warning("no plots: matplotlib is not installed (pip install depthfit[plots])")
    return folder


def overlays_beside(fits_npz: Path) -> Overlay:
    """Overlays that a run drew beside its fits.npz."""

    def find(name: str) -> Path | None:
        path = fits_npz.parent / "overlays" / f"{Path(name).stem}.png"
        return path if path.is_file() else None

    return find


def run_summary(fits_npz: Path) -> dict[str, Any]:
    """What the run that made ``fits_npz`` says of itself in summary.json beside it; empty without one."""
    path = fits_npz.parent / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def stamp_of(fits_npz: Path, dataset: str, protocol: str, **known: str) -> Stamp:
    """The stamp of a saved fit, from summary.json and config.yaml beside it.

    Args:
        known: Fields that the caller knows, such as ``camera`` and ``keypoints``.
    """
    unknown = dict.fromkeys(("true_body", "camera", "keypoints", "matching"), UNKNOWN)
    fields = {**unknown, **fit_fields(fits_npz), **known}
    return Stamp(dataset=dataset, protocol=protocol, scored_with=__version__, **fields)


def fit_fields(fits_npz: Path) -> dict[str, str]:
    """The fields of a stamp that a saved fit knows itself."""
    summary, config_path = run_summary(fits_npz), fits_npz.parent / "config.yaml"
    config = UNKNOWN
    if config_path.is_file():
        config = f"{config_path} sha256:{hashlib.sha256(config_path.read_bytes()).hexdigest()[:12]}"
    init = str(summary.get("init", UNKNOWN))
    return {
        "body": str(summary.get("body", UNKNOWN)),
        "tokenizer": str(summary.get("tokenizer", UNKNOWN)),
        # What stands as the prediction in the tables is not quite the regressor's.
        "init": f"{init} with mean shape" if summary.get("betas_left_out") else init,
        "config": config,
        "fitted_with": str(summary.get("depthfit", UNKNOWN)),
    }


def jsonable(value: Any) -> Any:
    """``value`` with NaN and infinities as null, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: jsonable(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _link(folder: Path, target: Path | None) -> str:
    return "" if target is None else Path(os.path.relpath(target, folder)).as_posix()
