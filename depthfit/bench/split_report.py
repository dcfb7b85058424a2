"""Report of ``depthfit bench splits``, of what is there: it is written again as the fits come in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthfit import __version__
from depthfit.atomic import atomic_path
from depthfit.bench import split_tables
from depthfit.bench.pool import Job
from depthfit.bench.split_plots import plot_sweeps
from depthfit.bench.split_scores import PERSON, Figures, figures, floor, people, plain
from depthfit.bench.splits import USUAL, Part
from depthfit.bench.variants import FITS
from depthfit.body.load import load_body
from depthfit.evaluation.protocol import SMPL24
from depthfit.evaluation.score import Scores
from depthfit.report.score_gallery import gallery_html
from depthfit.report.score_plots import has_matplotlib
from depthfit.report.score_report import jsonable
from depthfit.report.score_tables import Stamp, rows_text

ALL = "all"


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        usual: Parts of the splits, and fits: theirs.
        levels: Parts at other levels of noise, and level_fits: theirs.
        sweeps: Parts by sweep and value, and sweep_fits: theirs.
        chosen: Parts of the ablations, and ablations: their fits.
    """

    usual: list[Part]
    fits: list[str]
    levels: dict[str, list[Part]]
    level_fits: list[str]
    sweeps: dict[str, dict[float, list[Part]]]
    sweep_fits: list[str]
    chosen: list[Part]
    ablations: list[str]

    def tables(self) -> Iterator[tuple[str, list[Part], list[str]]]:
        """Name, parts and fits of all that is compared in one table."""
        yield "fits", self.usual, self.fits
        yield "ablations", self.chosen, self.ablations
        for level, parts in self.levels.items():
            yield f"errors of the evidence: {level}", parts, self.level_fits
        for name, values in self.sweeps.items():
            yield f"sweep of {name}", [p for parts in values.values() for p in parts], self.sweep_fits


def write_report(plan: Plan, job: Job, troubles: Sequence[str]) -> str:
    """Tables, plot and everybody's scores, as far as the fits are there; returns the Markdown.

    Writes splits.md, splits.csv, splits.json, people.csv, worst/FIT.html of the splits' fits and sweeps.png;
    rows say what they were made with. ``troubles`` are sentences to be said.
    """
    found = {name: comparable(parts, keys, job) for name, parts, keys in plan.tables()}
    by_fit = _by_fit(*found["fits"], job)
    by_level = {level: _by_fit(*found[f"errors of the evidence: {level}"], job) for level in plan.levels}
    curves = {name: _curve(values, *found[f"sweep of {name}"], job) for name, values in plan.sweeps.items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    ablated = _by_fit(*found["ablations"], job)
    floors = _floors(*found["fits"], job)
    text = split_tables.markdown(by_fit, by_level, curves, floors, ablated)
    missing = _missing(plan, found) + list(troubles)
    if missing:
        text = "\n".join(["**Not there:**", "", *(f"- {line}" for line in missing), "", text])
    content: dict[str, Any] = {
        "fits": _plain(by_fit),
        "levels": _plain(by_level),
        "sweeps": _plain(curves),
        "ablations": _plain(ablated),
        "distance_floor": floors,
        "missing": missing,
    }
    out, rows = Path(job.out), _people(found, job)
    stamps = {key: fit_stamp(key, job) for _, _, keys in plan.tables() for key in keys}
    texts = {
        "splits.md": text,
        "splits.json": json.dumps(jsonable({**content, "stamps": _dicts(stamps)}), indent=2),
        "splits.csv": rows_text(_figure_rows(content, stamps)).rstrip("\n"),
        "people.csv": rows_text([{**row, **asdict(stamps[row["fit"]])} for row in rows]).rstrip("\n"),
        **{f"worst/{key}.html": _worst(rows, key, stamps[key]) for key in found["fits"][1]},
    }
    for name, written in texts.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(written + "\n")
    if curves and has_matplotlib():
        with atomic_path(out / "sweeps.png") as temporary:
            plot_sweeps(curves, temporary)
    return text


def comparable(parts: Sequence[Part], keys: Sequence[str], job: Job) -> tuple[list[Part], list[str]]:
    """Some of ``parts`` and fits ``keys``, so that each of these parts has each of these fits.

    A table compares fits of the same people. Of all such choices, the one with the most results.
    """
    done = {key: [part for part in parts if job.fits(part, key).is_file()] for key in keys}
    best: tuple[list[Part], list[str]] = ([], [])
    for some in done.values():
        having = [key for key in keys if all(part in done[key] for part in some)]
        if len(some) * len(having) > len(best[0]) * len(best[1]):
            best = some, having
    return best


def by_split(parts: Sequence[Part], key: str, job: Job) -> dict[str, Figures]:
    """Figures of each split in ``parts``, and of all together."""
    names = list(dict.fromkeys(part.group for part in parts))
    found = {name: figures([part for part in parts if part.group == name], key, job) for name in names}
    return {**found, ALL: figures(parts, key, job)}


def _by_fit(parts: Sequence[Part], keys: Sequence[str], job: Job) -> dict[str, dict[str, Figures]]:
    return {key: by_split(parts, key, job) for key in keys}


def _curve(
    values: Mapping[float, Sequence[Part]], parts: Sequence[Part], keys: Sequence[str], job: Job
) -> dict[str, dict[float, Figures]]:
    """By fit and value; values of which some people are missing are left out."""
    whole = {value: own for value, own in values.items() if all(part in parts for part in own)}
    return {key: {value: figures(own, key, job) for value, own in whole.items()} for key in keys if whole}


def _floors(parts: Sequence[Part], keys: Sequence[str], job: Job) -> dict[str, float]:
    if not parts:
        return {}
    body = load_body()
    names = dict.fromkeys(part.group for part in parts)
    floors = {name: floor([p for p in parts if p.group == name], keys[0], job, body) for name in names}
    return {**floors, ALL: floor(parts, keys[0], job, body)}


def _missing(plan: Plan, found: Mapping[str, tuple[list[Part], list[str]]]) -> list[str]:
    """What was asked for and is in no table."""
    lines = []
    for name, parts, keys in plan.tables():
        there, having = found[name]
        asked, got = sum(part.people for part in parts), sum(part.people for part in there)
        if got < asked:
            lines.append(f"{name}: {asked - got} of {asked} people.")
        elif len(having) < len(keys):
            lines.append(f"{name}: {', '.join(key for key in keys if key not in having)}.")
    return lines


def _people(found: Mapping[str, tuple[list[Part], list[str]]], job: Job) -> list[dict[str, Any]]:
    """Everybody under every fit; people who are in more than one table come once."""
    rows = {}
    for name, (parts, keys) in found.items():
        # Sweeps have images of the same names at every value.
        sets = [parts]
        if name.startswith("sweep"):
            sets = [[part] for part in parts]
        for key in keys:
            for own in sets:
                for row in people(own, key, job):
                    rows[tuple(row[column] for column in PERSON[:5])] = row
    return list(rows.values())


def fit_stamp(key: str, job: Job) -> Stamp:
    """What the results of a fit were made with; settings.yaml holds the settings of all."""
    digest = hashlib.sha256((Path(job.out) / "settings.yaml").read_bytes()).hexdigest()[:12]
    return Stamp(
        dataset=f"depthfit bench splits, seed {job.seed}",
        protocol=SMPL24.name,
        body=load_body().name,
        true_body="as stored",
        tokenizer="open",
        init="predictions",
        camera="true focal" if FITS[key].knows_focal else "synthetic, with errors",
        keypoints="synthetic, with errors",
        matching="person",
        config=f"settings.yaml sha256:{digest}, {' + '.join(FITS[key].configs) or 'joint'}",
        fitted_with=__version__,
        scored_with=__version__,
    )


def _dicts(stamps: Mapping[str, Stamp]) -> dict[str, dict[str, str]]:
    return {key: asdict(stamp) for key, stamp in stamps.items()}


def _figure_rows(content: Mapping[str, Any], stamps: Mapping[str, Stamp]) -> list[dict[str, Any]]:
    """A row for every cell of the tables: table, fit, split or value, its figures and its stamp."""
    tables = {name: content[name] for name in ("fits", "ablations")}
    tables |= {f"errors of the evidence: {level}": fits for level, fits in content["levels"].items()}
    tables |= {f"sweep of {name}": fits for name, fits in content["sweeps"].items()}
    rows = []
    for table, fits in tables.items():
        for key, cells in fits.items():
            for of, figures_of_cell in cells.items():
                flat = {k: v for k, v in figures_of_cell.items() if k != "coverage"}
                for what, levels in figures_of_cell["coverage"].items():
                    flat |= {f"{what} in {level}": share for level, share in levels.items()}
                rows.append({"table": table, "fit": key, "of": of, **flat, **asdict(stamps[key])})
    return rows


def _worst(rows: Sequence[Mapping[str, Any]], key: str, stamp: Stamp) -> str:
    """The page of the worst people of a fit in the splits; nothing is drawn here."""
    own = [
        {
            **row,
            "imgname": f"{row['group']} {row['image']}",
            "status": "accepted" if row["accepted"] else "refused",
        }
        for row in rows
        if row["fit"] == key and row["level"] == USUAL
    ]
    return gallery_html(Scores(own, {"mpjpe_mm": {}}), stamp, [""] * len(own))


def _plain(value: Any) -> Any:
    if isinstance(value, Figures):
        return plain(value)
    return {str(name): _plain(inner) for name, inner in value.items()}
