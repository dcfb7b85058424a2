"""Help texts from the configuration dataclasses, so that they cannot go stale."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether the user asked for help."""
    return any(a in ("-h", "--help") for a in arguments)


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
