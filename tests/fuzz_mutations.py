"""Changes of valid documents, as hypothesis strategies: of bytes, of nested values, of tables of text."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

_PLACES = st.one_of(st.integers(0, 127), st.integers(0, 2**24))  # headers are short and matter most
_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
_FORMATS = ["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]


def few(edits: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    """Return lists of changes, mostly of none or one: what differs in many ways is refused for the first."""
    one, some = st.lists(edits, min_size=1, max_size=1), st.lists(edits, min_size=2, max_size=most)
    return st.one_of(st.just([]), one, one, some)


BYTE_EDITS = few(
    st.one_of(
        st.tuples(st.just("flip"), _PLACES, st.integers(0, 7)),
        st.tuples(st.just("number"), _PLACES, st.sampled_from(_NUMBERS), st.sampled_from(_FORMATS)),
        st.tuples(st.just("cut"), _PLACES),
        st.tuples(st.just("drop"), _PLACES, st.integers(1, 64)),
        st.tuples(st.just("repeat"), _PLACES, st.integers(1, 64)),
        st.tuples(st.just("insert"), _PLACES, st.binary(min_size=1, max_size=8)),
    )
)
"""Changes for :func:`edited`."""
RARELY = st.one_of(st.just([]), st.just([]), st.just([]), BYTE_EDITS)
"""The same, mostly none: for files that were changed before they were packed."""


def edited(content: bytes, edits: Sequence[tuple[Any, ...]]) -> bytes:
    """Apply changes of :data:`BYTE_EDITS`; places beyond the end start again at the beginning."""
    data = bytearray(content)
    for kind, place, *rest in edits:
        at = place % max(len(data), 1)
        if kind == "flip" and data:
            data[at] ^= 1 << rest[0]
        elif kind == "number":
            number, form = rest
            packed = struct.pack(form, number % 2 ** (8 * struct.calcsize(form)))
            data[at : at + len(packed)] = packed
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + rest[0]]
        elif kind == "repeat":
            data[at:at] = data[at : at + rest[0]]
        elif kind == "insert":
            data[at:at] = rest[0]
    return bytes(data)


def of_seeds(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return changed copies of files."""
    return st.builds(edited, st.sampled_from(list(seeds)), BYTE_EDITS)


def _bomb() -> Any:
    value: Any = "x"
    for _ in range(30):
        value = [value] * 9
    return value


def _endless() -> Any:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def _deep() -> Any:
    value: Any = 1
    for _ in range(3000):
        value = [value]
    return value


def _long() -> Any:
    return list(range(2000))


def _wide() -> Any:
    return {str(index): index for index in range(2000)}


class Made:
    """A value that is made anew for each case; reports show its name, as its repr may have no end."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self) -> Any:
        return self._make()

    def __repr__(self) -> str:
        return f"Made({self._make.__name__})"


def made(value: Any) -> Any:
    """Return the value that a :class:`Made` stands for, and any other as it is."""
    return value() if isinstance(value, Made) else value


TEXTS = [
    *("", " ", "null", "nan", "-1", "1e999", "true", "x" * 300, "x" * 20_000, "猫", "é", "e\u0301", "🐈"),
    *(
        "\x1b[31m",
        "a\nb",
        "a\0b",
        "\ud800",
        "\u202etxt",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
    ),
    *(
        "<script>alert(1)</script>",
        r"\write18{ls}",
        "$(touch x)",
        "%s%n",
        "{0.__class__}",
        "'",
        '"',
        ",",
        ";",
    ),
    *("C:\\x", "con", ".", "~", "-rf", "0", "1", "254", "255", "=1+1", "1_0", "１", "٣"),
]
PLAIN = [
    *(None, True, False, 0, 1, -1, 2, 255, 256, 2**31, 2**53, 2**63 - 1, 0.5, 1.0, -0.0, 1e-300, 1e308),
    *([], {}, [[]], [None], {"a": 1}, [1, 2], ["x", "x"], {"": ""}, [0.1, 0.1], {"x": {"y": {"z": []}}}),
]
"""Values that JSON can hold."""
JSON_JUNK = st.one_of(st.sampled_from(PLAIN), st.sampled_from(TEXTS), st.integers(-9, 300))
"""The same for JSON, with numbers of sizes that occur."""
_ODD = [
    *(float("inf"), float("nan"), 2**63, 10**400, -(10**400), {1: 2}, {None: 1}, {(1, 2): 3}, {1.5: 1}),
    *(b"bytes", datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), {1, 2}, (1,), 1j),
    *(Made(_bomb), Made(_endless), Made(_deep), Made(_long), Made(_wide)),
]
VALUES = st.one_of(
    st.sampled_from(PLAIN), st.sampled_from(TEXTS), st.integers(), st.floats(), st.text(max_size=6)
)
JUNK = st.one_of(VALUES, st.sampled_from(_ODD))
"""What is put in the place of a value: also what only YAML or Python can hold; see :func:`made`."""


def document_edits(junk: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Return changes for :func:`rewritten`."""
    place = st.integers(0, 10**5)
    return few(
        st.one_of(
            st.tuples(st.just("replace"), place, junk),
            st.tuples(st.just("remove"), place, st.none()),
            st.tuples(st.just("add"), place, st.tuples(st.sampled_from(TEXTS), junk)),
            st.tuples(st.just("rename"), place, st.sampled_from(TEXTS)),
            st.tuples(st.just("copy"), place, place),
            st.tuples(st.just("wrap"), place, st.sampled_from([lambda v: [v], lambda v: {"x": v}, str])),
            st.tuples(st.just("nudge"), place, st.sampled_from([-1, 0.5, 1, 10, 1e6, 1e300])),
        ),
        most,
    )


def rewritten(document: Any, edits: Sequence[tuple[Any, ...]]) -> Any:
    """Apply changes of :func:`document_edits` to a copy of nested mappings and lists."""
    for kind, place, given in edits:
        paths = list(_paths(document))
        path = paths[place % len(paths)]
        if kind == "replace":
            document = _with(document, path, lambda _, given=given: made(given))
        elif kind == "remove" and path:
            document = _with(document, path[:-1], lambda value, key=path[-1]: _without(value, key))
        elif kind == "add":
            document = _with(
                document, path, lambda value, given=given: _added(value, given[0], made(given[1]))
            )
        elif kind == "rename" and path:
            document = _with(
                document, path[:-1], lambda value, key=path[-1], given=given: _renamed(value, key, given)
            )
        elif kind == "copy":
            other = _at(document, paths[given % len(paths)])
            document = _with(document, path, lambda _, other=other: other)
        elif kind == "wrap":
            document = _with(document, path, _safely(given))
        elif kind == "nudge":
            document = _with(document, path, _safely(lambda value, given=given: value * given))
    return document


def _safely(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def changed(value: Any) -> Any:
        if isinstance(value, (dict, list)) and change is str:
            return "text"
        try:
            return change(value)
        except (TypeError, ValueError, OverflowError, MemoryError):
            return value

    return changed


def _paths(value: Any, path: tuple[Any, ...] = (), depth: int = 0) -> Any:
    yield path
    if depth < 9 and isinstance(value, (dict, list)) and len(value) < 300:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _paths(inner, (*path, key), depth + 1 if not isinstance(inner, list) else depth + 4)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copied = value.copy()
    copied[path[0]] = _with(value[path[0]], path[1:], change)
    return copied


def _without(value: Any, key: Any) -> Any:
    if isinstance(value, list):
        return value[:key] + value[key + 1 :]
    return {name: one for name, one in value.items() if name != key}


def _added(value: Any, key: str, given: Any) -> Any:
    if isinstance(value, dict):
        return {**value, key: given}
    return [*value, given] if isinstance(value, list) else value


def _renamed(value: Any, key: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {name if one == key else one: inner for one, inner in value.items()}
    return value


CELLS = st.one_of(st.sampled_from(TEXTS), st.text(max_size=5), st.integers().map(str), st.floats().map(str))
"""What a cell of a table of text may hold."""
TABLE_EDITS = few(
    st.one_of(
        st.tuples(st.just("cell"), st.integers(0, 999), st.integers(0, 9), CELLS),
        st.tuples(st.just("drop row"), st.integers(0, 999), st.just(0), st.just("")),
        st.tuples(st.just("repeat row"), st.integers(0, 999), st.just(0), st.just("")),
        st.tuples(st.just("swap rows"), st.integers(0, 999), st.integers(0, 999), st.just("")),
        st.tuples(st.just("drop cell"), st.integers(0, 999), st.integers(0, 9), st.just("")),
        st.tuples(st.just("add cell"), st.integers(0, 999), st.integers(0, 9), CELLS),
        st.tuples(st.just("drop column"), st.just(0), st.integers(0, 9), st.just("")),
        st.tuples(st.just("column"), st.just(0), st.integers(0, 9), CELLS),
    )
)
"""Changes for :func:`retold`."""


def retold(rows: Sequence[Sequence[str]], edits: Sequence[tuple[str, int, int, str]]) -> list[list[str]]:
    """Apply changes of :data:`TABLE_EDITS` to a copy of a table of text; its first row is the header."""
    table = [list(row) for row in rows]
    for kind, place, column, text in edits:
        if not table:
            break
        # Small numbers are likely, and the header is only one of the rows.
        row = table[(place + 1) % len(table)]
        at = (column + 1) % max(len(row), 1)
        if kind == "cell":
            row[at : at + 1] = [text]
        elif kind == "drop row":
            table.remove(row)
        elif kind == "repeat row":
            table.append(list(row))
        elif kind == "swap rows":
            other = column % len(table)
            here = place % len(table)
            table[here], table[other] = table[other], table[here]
        elif kind == "drop cell":
            del row[at : at + 1]
        elif kind == "add cell":
            row.insert(at, text)
        elif kind == "drop column":
            table = [one[:at] + one[at + 1 :] for one in table]
        elif kind == "column":
            table = [table[0], *([*one[:at], text, *one[at + 1 :]] for one in table[1:])]
    return table
