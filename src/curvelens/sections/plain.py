"""What any configuration consists of, whatever its keys mean: plain values, not too many, each key once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from curvelens.errors import ConfigError, brief

MOST_VALUES = 100_000
DEEPEST = 32
LONGEST_TEXT = 10_000
LARGEST_INTEGER = 2**63 - 1
LARGEST_FILE = 2**24  # bytes


def check_plain(raw: Any) -> None:
    """Refuse what no configuration needs and what would stall or break the code that reads it.

    A few lines of YAML can stand for 10⁹ values, or for a list that contains itself; each alias counts here
    as what it stands for.

    Args:
        raw: What the YAML file says.

    Raises:
        ConfigError: It is no mapping, is nested too deeply, has too many values, a text that is too long or
            has control characters, or an integer beyond 64 bits.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"config: is {brief(raw)}, not keys with values; write `datasets:`, `models:` and "
            "`experiments:` (see config/README.md)"
        )
    seen = 0
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(raw, ())]
    while waiting:
        value, path = waiting.pop()
        seen += 1
        if len(path) > DEEPEST:
            raise ConfigError(
                f"config: {_dotted(path)} is nested more than {DEEPEST} deep; does an alias (*name) "
                "contain itself?"
            )
        inner = _inner(value)
        # What waits is counted too: it may not outgrow the memory before its turn comes.
        if seen + len(waiting) + len(inner) > MOST_VALUES:
            raise ConfigError(
                f"config: has more than {MOST_VALUES:,} values (at {_dotted(path)}); aliases (*name) count "
                "as what they stand for: leave some out"
            )
        waiting += [(one, (*path, key)) for key, one in inner]
        _check_scalar(value, path)
        for key in value if isinstance(value, Mapping) else ():
            _check_scalar(key, path)


def _inner(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, (list, tuple)) else []


def _check_scalar(value: Any, path: tuple[Any, ...]) -> None:
    where = f"config: {_dotted(path) or 'the top level'}"
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            raise ConfigError(
                f"{where} has a text of {len(value):,} characters; use {LONGEST_TEXT:,} at most"
            )
        strange = next((c for c in value if _control(c)), None)
        if strange is not None:
            raise ConfigError(f"{where} has the character {strange!r} in {brief(value)}; remove it")
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ConfigError(f"{where} has an integer beyond 64 bits; give a smaller one")


def _control(character: str) -> bool:
    # Half of a surrogate pair cannot be written to any file; line breaks and tabs are part of long texts.
    return (character < " " and character not in "\n\t") or "\ud800" <= character <= "\udfff"


def _dotted(path: tuple[Any, ...]) -> str:
    shown = [key if isinstance(key, str) else brief(key) for key in path[:6]]
    return ".".join(shown) + ("…" if len(path) > 6 else "")


def check_files(paths: Iterable[str | Path]) -> None:
    """Refuse YAML and JSON files in which a key is given twice: readers silently take the last.

    Args:
        paths: The files. One that cannot be read or parsed is left to whoever reads it; a YTE template
            (``__use_yte__``) may repeat keys.

    Raises:
        ConfigError: A key is given twice in one mapping, or a file is too large for a configuration.
    """
    for path in map(Path, paths):
        size = path.stat().st_size if path.is_file() else 0
        if size > LARGEST_FILE:
            raise ConfigError(f"{path}: has {size:,} bytes, too many for a configuration; name another")
        twice = next(_twice(path), None)
        if twice is not None:
            key, where = twice
            raise ConfigError(f"{path}: the key {brief(key)} is given twice{where}; keep one of the two")


def _twice(path: Path) -> Iterator[tuple[str, str]]:
    """Yield keys that a mapping of the file holds more than once, and where."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    found: list[tuple[str, str]] = []
    try:
        json.loads(text, object_pairs_hook=lambda pairs: found.extend(_repeated(pairs)))
        yield from found
        return
    except (ValueError, RecursionError):
        found.clear()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    if isinstance(root, yaml.MappingNode) and not any(key.value == "__use_yte__" for key, _ in root.value):
        yield from _twice_below(root)


def _repeated(pairs: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(key, "") for key, count in Counter(key for key, _ in pairs).items() if count > 1]


def _twice_below(root: Any) -> Iterator[tuple[str, str]]:
    import yaml

    waiting, known = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else []
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    yield key.value, f", in lines {lines[name]} and {line}"
                lines[name] = line
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        # An alias leads to the same node again, so each is looked at once.
        new = [one for one in inner if id(one) not in known]
        known |= {id(one) for one in new}
        waiting += new
