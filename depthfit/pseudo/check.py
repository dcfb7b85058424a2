"""Whether a finished run is whole: its files, its sums, and the people of its source."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from depthfit.errors import InputError
from depthfit.pseudo.config import PseudoConfig
from depthfit.pseudo.layout import CONFIG, SUMMARY, Layout
from depthfit.pseudo.manifest import Manifest, checksum
from depthfit.pseudo.open_source import open_source
from depthfit.pseudo.part import read_index


def check(out: str, source: str | None = None) -> list[str]:
    """Sentences on what is wrong with an output folder; none = nothing.

    Every file is read and compared with its checksum, every person counted. With ``source`` the people are
    counted anew there, and compared by image.

    Raises:
        InputError: There is no finished run.
    """
    root = Path(out)
    if not (root / SUMMARY).is_file():
        raise InputError(root, SUMMARY, "not there", "Run `depthfit pseudo-gt` to its end first.")
    summary = json.loads((root / SUMMARY).read_text())
    layout = Layout(root)
    manifest = Manifest(layout)
    problems: list[str] = []
    outcomes: Counter[str] = Counter()
    people: Counter[tuple[str, str, int]] = Counter()
    for unit, entry in manifest.entries.items():
        problems += _files(root, entry["files"])
        if problems and not layout.index(unit).is_file():
            continue
        for row in read_index(layout.index(unit)):
            outcomes[row["outcome"]] += 1
            people[unit, row["key"], row["person"]] += 1
    problems += _files(root, summary["documents"])
    problems += [f"{key} is there {n} times" for key, n in people.items() if n > 1]
    expected = {name: count for name, count in summary["outcomes"].items() if count}
    if dict(outcomes) != expected:
        problems.append(f"the index has {dict(outcomes)}, the summary {expected}")
    if source is not None:
        problems += _against(source, root, people)
    return problems


def _files(root: Path, files: dict[str, Any]) -> list[str]:
    problems = []
    for name, entry in files.items():
        if not (root / name).is_file():
            problems.append(f"{name}: missing")
        elif checksum(root / name) != entry["sha256"]:
            problems.append(f"{name}: not what was written")
    return problems


def _against(source: str, root: Path, people: Counter[tuple[str, str, int]]) -> list[str]:
    """The source's people, counted by image once more."""
    merged = OmegaConf.merge(OmegaConf.structured(PseudoConfig), OmegaConf.load(root / CONFIG))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, PseudoConfig)
    dataset = open_source(source, config)
    wanted: Counter[tuple[str, str]] = Counter()
    for unit in dataset.units():
        for item in dataset.plan(unit).items:
            wanted[unit.name, item.key] += item.people
    found: Counter[tuple[str, str]] = Counter()
    for (unit_name, key, _), count in people.items():
        found[unit_name, key] += count
    differs = sorted(key for key in wanted.keys() | found.keys() if wanted[key] != found[key])
    return [
        f"{unit}/{key}: {wanted[unit, key]} people, {found[unit, key]} accounted for" for unit, key in differs
    ]
