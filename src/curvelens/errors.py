"""Errors that people can act on: one line that says what is wrong, where, and what to do."""

from __future__ import annotations


class CurvelensError(Exception):
    """Base of every error that curvelens raises on purpose; its text is one line for the user."""


class ConfigError(CurvelensError, ValueError):
    """The configuration names something that does not exist or cannot be."""


class DataError(CurvelensError, ValueError):
    """A data set or artifact is missing, damaged, or not what it claims to be."""


class ModelError(CurvelensError, ValueError):
    """A model cannot be built, or its weights do not fit it."""


class ArgumentError(CurvelensError, ValueError):
    """A library function was called with an argument outside its documented range."""
