"""Errors that people can act on: one line that says what is wrong, where, and what to do."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Any

LONGEST = 2000
"""Characters of the longest message; names and values from files may be longer."""

_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


class CurvelensError(Exception):
    """Base of every error that curvelens raises on purpose; its text is one line for the user.

    Whatever names or values are quoted in it, the line has no control characters and is not endless.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(CurvelensError, ValueError):
    """The configuration names something that does not exist or cannot be."""


class DataError(CurvelensError, ValueError):
    """A data set or artifact is missing, damaged, or not what it claims to be."""


class ModelError(CurvelensError, ValueError):
    """A model cannot be built, or its weights do not fit it."""


class ArgumentError(CurvelensError, ValueError):
    """A library function was called with an argument outside its documented range."""


def printable(text: str, longest: int = LONGEST) -> str:
    """Return a text as one line that is safe in terminals and log files.

    Line breaks become spaces; other characters that do not print, among them terminal escapes, marks that
    reverse the direction of writing and halves of surrogate pairs, are written as Python escapes.

    Args:
        text: Any text.
        longest: Most characters of the result; from the middle of a longer text is left out.
    """
    if len(text) > longest:
        text = text[: longest // 2 - 1] + " … " + text[len(text) - longest // 2 + 2 :]
    text = _BREAKS.sub(" ", text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        return text if len(text) <= longest else printable(text, longest)
    return text


def on_one_line(text: str) -> bool:
    """Return whether a name has neither line breaks nor control characters, and can be written to a file."""
    return text.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def brief(value: Any) -> str:
    """Return ``repr(value)``, shortened where it is long or nested deeply."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple = 3, 4, 8, 8
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 100


class MemoryShortageError(CurvelensError, MemoryError):
    """Not even the smallest piece of the work fits in memory."""


class StorageError(CurvelensError):
    """A file cannot be written: the disk is full, or the folder is not ours to write."""
