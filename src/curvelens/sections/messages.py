"""What is said of a mistake in the configuration."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from curvelens.errors import brief
from curvelens.studies import KINDS


def one_line(error: ValidationError, root: type[BaseModel]) -> str:
    """Say on one line which key is wrong, what is wrong with it, and what to do.

    Args:
        error: What the validation of the configuration found; the first problem is named, the others counted.
        root: The model that was validated: unknown keys are compared with those it has.
    """
    problems = error.errors(include_url=False)
    # An unknown key is often the cause of a missing one: name it first.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    key = _dotted(first["loc"])
    more = (
        f" ({len(problems) - 1} more problem{'s' if len(problems) > 2 else ''} after this one)"
        if problems[1:]
        else ""
    )
    if first["type"] == "extra_forbidden":
        return f"config: unknown key '{key}'; {_allowed(first['loc'], root)}{more}"
    if first["type"] == "missing":
        return f"config: '{key}' is missing; add it (see config/README.md){more}"
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f" = {brief(first['input'])}"
    return f"config: {key}{given}: {reason[0].lower()}{reason[1:]}; correct it (see config/README.md){more}"


def _dotted(location: tuple[int | str, ...]) -> str:
    # Pydantic puts a study's kind into the path, though no key of that name exists.
    parts = location[:2] + location[3:] if _kind(location) else location
    return ".".join(str(part) for part in parts)


def _kind(location: tuple[int | str, ...]) -> str | None:
    found = str(location[2]) if location[:1] == ("studies",) and len(location) > 2 else None
    return found if found in KINDS else None


def _allowed(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    kind = _kind(location)
    model: Any = KINDS[kind] if kind else root
    below_name = False  # whether the next part is a name that the user chose, which a key may have too
    for part in location[3 if kind else 0 : -1]:
        field = None if below_name else model.model_fields.get(str(part))
        below_name = field is not None and "dict[" in str(field.annotation)
        model = (_mapping_in(field.annotation) if field is not None else None) or model
    keys = list(model.model_fields)
    near = get_close_matches(str(location[-1]), keys, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + "known here: " + ", ".join(keys)


def _mapping_in(annotation: Any) -> Any:
    """Return the closed mapping inside ``annotation`` (Optional[X], dict[str, X] or X)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _mapping_in(inner)
        if found is not None:
            return found
    return None
