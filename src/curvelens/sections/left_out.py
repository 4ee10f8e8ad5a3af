"""Entries of a configuration that are set to `null`, and so left out: merging files could only add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from curvelens.errors import ConfigError, brief

SECTIONS = ("datasets", "models", "experiments", "studies")
"""Sections whose keys are names of the user's, and whose entries may be left out."""


def without_left_out(raw: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a configuration without the entries that are set to null."""
    return {
        key: {name: entry for name, entry in section.items() if not _is_null(entry)}
        if key in SECTIONS and isinstance(section, Mapping)
        else section
        for key, section in raw.items()
    }


def check_left_out(
    raw: Mapping[str, Any], files: Iterable[str | Path], others: Iterable[str | Path] = ()
) -> None:
    """Refuse to leave out what is nowhere: a name that is mistyped would run after all.

    Once files are merged, a name that is set to null no longer tells whether it ever stood for something, so
    the files are read again, where there is such a name.

    Args:
        raw: The configuration, merged.
        files: The files that it was merged from. Where none of them has a section of names, as in a workflow
            that takes this one as a module, nothing is known and nothing refused.
        others: More files whose names may be left out: an overlay may serve several configurations.

    Raises:
        ConfigError: A name that is set to null has an entry in none of the files.
    """
    null = [
        (section, name)
        for section in SECTIONS
        if isinstance(raw.get(section), Mapping)
        for name, entry in raw[section].items()
        if _is_null(entry)
    ]
    if not null:
        return
    own = [_read(path) for path in files]
    if any("__use_yte__" in given for given in own) or not any(set(SECTIONS) & set(given) for given in own):
        return
    known = {entry for given in own for entry in _entries(given)}
    if not set(null) <= known:
        known |= {entry for path in others for entry in _entries(_read(path))}
    for section, name in null:
        if (section, name) not in known:
            running = [str(other) for other, entry in raw[section].items() if not _is_null(entry)]
            near = get_close_matches(str(name), running, n=1)
            meant = f"did you mean '{near[0]}'? " if near else ""
            shown = name if isinstance(name, str) else brief(name)
            raise ConfigError(
                f"config: {section}.{shown} = null leaves out what no configuration has; "
                f"{meant}there are: {', '.join(running) or 'none'}"
            )


def _is_null(entry: Any) -> bool:
    # Snakemake reads values inside a mapping that is given to --config as texts.
    return entry is None or entry == "null"


def _read(path: str | Path) -> Mapping[str, Any]:
    import yaml

    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}  # left to whoever reads it for its values
    return given if isinstance(given, Mapping) else {}


def _entries(given: Mapping[str, Any]) -> set[tuple[str, Any]]:
    return {
        (section, name)
        for section in SECTIONS
        if isinstance(given.get(section), Mapping)
        for name, entry in given[section].items()
        if not _is_null(entry)
    }
