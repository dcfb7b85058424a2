"""Training tars with only the refined labels rewritten."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from depthfit.errors import InputError
from depthfit.pseudo import pickles
from depthfit.pseudo.labels import refined_entry
from depthfit.pseudo.records import REFINED, ItemRef, UnitPlan
from depthfit.pseudo.source_tars import LABEL, members_of, read_label
from depthfit.pseudo.tars import Member, copy_file, copy_member, scan, write_changed, write_end

Rows = Sequence[dict[str, Any]]


def write_shard(plan: UnitPlan, rows: Sequence[Rows], target: Path, provenance: dict[str, Any]) -> bool:
    """Write a shard; returns whether it is another file than the source's.

    Members that do not change are copied with their headers. A shard in which nothing changes is the
    source's file. Else its provenance stands in a global pax header, which readers of tars skip.

    Args:
        plan: Of the unit.
        rows: Of each item's people.
        target: File to write.
        provenance: Of the run.

    Raises:
        InputError: The source is not what was planned.
    """
    source = Path(plan.unit.path)
    changed = [_is_changed(people) for people in rows]
    if not plan.faults and not any(changed):
        copy_file(source, target)
        return False
    owners = {m.start: n for n, item in enumerate(plan.items) for m in members_of(item).values()}
    members, _ = scan(source)
    gone = owners.keys() - {member.start for member in members}
    if gone:
        fix = "Put it back, or give another output folder."
        raise InputError(source, f"byte {min(gone)}", "changed since it was planned", fix)
    with source.open("rb") as file, target.open("wb") as out:
        if any(row["written"] for people in rows for row in people):
            # Not where nobody is left: an archive of nothing but such a header is none for Python's reader.
            comment = {"comment": json.dumps(provenance, sort_keys=True)}
            out.write(tarfile.TarInfo.create_pax_global_header(comment))
        for member in members:
            n = owners.get(member.start)
            if n is None or not changed[n]:
                copy_member(file, member, out)
            else:
                _write_member(file, member, plan.items[n], rows[n], out)
        write_end(out)
    return True


def _is_changed(people: Rows) -> bool:
    return any(row["outcome"] == REFINED or not row["written"] for row in people)


def _write_member(file: BinaryIO, member: Member, item: ItemRef, people: Rows, out: BinaryIO) -> None:
    if not any(row["written"] for row in people):
        return
    label = members_of(item)[LABEL]
    if member.start != label.start:
        copy_member(file, member, out)
        return
    entries = read_label(file, label, item.key)
    kept = [
        refined_entry(entry, row["pose"], row["betas"]) if row["outcome"] == REFINED else entry
        for entry, row in zip(entries, people, strict=True)
        if row["written"]
    ]
    write_changed(file, member, pickles.dumps(kept), out)
