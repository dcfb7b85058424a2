"""Help texts from the configuration dataclasses, so that they cannot go stale."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Sequence


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether the user asked for help."""
    return any(a in ("-h", "--help") for a in arguments)


def lacks_names(arguments: Sequence[str], command: str, names: Sequence[str]) -> bool:
    """Whether the files or folders are missing that a command begins with; if so, says which it wants.

    Args:
        arguments: Of the command.
        command: As it is called, behind ``depthfit``.
        names: What they are called in its usage line.
    """
    given = arguments[: len(names)]
    if len(given) == len(names) and not any("=" in argument for argument in given):
        return False
    wanted = " ".join(names)
    print(f"depthfit {command}: name {' and '.join(names)}: depthfit {command} {wanted}", file=sys.stderr)
    return True


def settings(schema: type) -> str:
    """Every setting of a configuration class: name, default, meaning."""
    return "\n".join(_lines(schema(), ""))


def _lines(config: object, prefix: str) -> Iterator[str]:
    meaning = _attributes(type(config))
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _lines(value, f"{prefix}{field.name}.")
        else:
            yield f"  {prefix + field.name}={_plain(value)}"
            if field.name in meaning:
                yield f"      {meaning[field.name]}"


def _plain(value: object) -> str:
    """As YAML writes it, so that it can be pasted behind the name."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{','.join(_plain(item) for item in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _attributes(schema: type) -> dict[str, str]:
    """The ``Attributes:`` sections of a dataclass and its bases."""
    out: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        text = inspect.cleandoc(cls.__doc__ or "")
        if "Attributes:" not in text:
            continue
        for entry in re.split(r"\n {4}(?=\S)", text.split("Attributes:", 1)[1])[1:]:
            names, _, meaning = entry.partition(": ")
            meaning = " ".join(meaning.split()).replace("``", "")
            out.update({name.strip(): meaning for name in names.split(",")})
    return out
