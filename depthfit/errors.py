"""Errors that tell a user what was wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


class DepthfitError(Exception):
    """Base of every error that depthfit raises on purpose."""


class InputError(DepthfitError):
    """A file or setting that the user gave cannot be used.

    Args:
        source: The file (or setting) at fault.
        field: The part of it at fault, e.g. ``people[0].pose_keypoints_2d``.
        found: What was there.
        fix: What the user can do about it.
    """

    def __init__(self, source: str | Path, field: str, found: str, fix: str) -> None:
        self.source, self.field, self.found, self.fix = str(source), field, found, fix
        super().__init__(f"{source}: {field}: {found}. {fix}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        # An exception is pickled by its message alone, which is not what it is made from.
        return InputError, (self.source, self.field, self.found, self.fix)


def check_choice(source: str | Path, field: str, value: str, known: Collection[str]) -> None:
    """Refuse a setting that is none of those known.

    Raises:
        InputError: Names them.
    """
    if value not in known:
        raise InputError(source, field, repr(value), f"Use one of: {', '.join(known)}.")
