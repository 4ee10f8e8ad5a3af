"""Registries: a data set, an architecture or a method is added by one new file that registers itself.

A registry belongs to a package. On the first look-up it imports every module of that package whose name does
not begin with an underscore, so no list of members exists anywhere. Those modules keep torch, pandas and the
like inside their functions, which lets the workflow check a configuration without paying for those imports.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from curvelens.errors import ConfigError, CurvelensError, brief

F = TypeVar("F", bound=Callable[..., Any])


class Parameters(BaseModel):
    """Base of every parameter model: unknown keys are refused and values cannot change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoParameters(Parameters):
    """The parameters of an entry that has none."""


def one_line(error: ValidationError, where: str = "") -> str:
    """Say in one line what is wrong with the first value that a parameter model refused.

    Args:
        error: What pydantic raised.
        where: Path of the checked mapping in the configuration, e.g. ``"models.relu.parameters"``.

    Returns:
        ``"<where>.<key>: <problem>"``, with the number of further problems where there are more.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in (where, *first["loc"]) if str(part))
    what = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    value = "" if first["type"] in ("missing", "extra_forbidden") else f" (it is {brief(first['input'])})"
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{key or 'value'}: {what}{value}{more}"


@dataclass(frozen=True)
class Entry:
    """One member of a registry.

    Attributes:
        name: The name used in the configuration.
        function: What was registered; its signature is set by the registry's package.
        parameters: Closed pydantic model of the parameters.
        reference: Where it comes from, e.g. ``"Torop et al. 2023, eq. 8"``.
        description: First paragraph of the function's docstring, on one line.
        traits: Further facts given at registration, such as ``image_shape``.
    """

    name: str
    function: Callable[..., Any]
    parameters: type[BaseModel]
    reference: str
    description: str
    traits: Mapping[str, Any] = field(default_factory=dict)

    def parse(self, values: Mapping[str, Any] | None, where: str = "parameters") -> BaseModel:
        """Check parameter values given by a user.

        Args:
            values: Mapping of parameter names to values; None means all defaults.
            where: Path of the mapping in the configuration, for the message.

        Returns:
            An instance of :attr:`parameters`.

        Raises:
            ConfigError: A key is unknown or missing, or a value has the wrong type or range.
        """
        if not isinstance(values, Mapping | None):
            raise ConfigError(f"{where}: is {brief(values)}, not keys with values; correct it")
        try:
            return self.parameters.model_validate(dict(values or {}))
        except ValidationError as error:
            known = ", ".join(self.parameters.model_fields) or "none"
            raise ConfigError(f"{one_line(error, where)}; {self.name} takes: {known}") from error


class Registry:
    """The members of one package, found by importing its modules on the first look-up.

    Args:
        kind: What the members are, for messages, e.g. ``"data set"``.
        package: Dotted name of the package, e.g. ``"curvelens.datasets"``.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def register(
        self,
        name: str,
        *,
        parameters: type[BaseModel] = NoParameters,
        reference: str = "",
        description: str | None = None,
        **traits: Any,
    ) -> Callable[[F], F]:
        """Return a decorator that adds a function under ``name``.

        Args:
            name: Name in the configuration; unique in this registry.
            parameters: Pydantic model that refuses unknown keys.
            reference: Source of the method or data.
            description: One line; by default the first paragraph of the function's docstring.
            traits: Further facts that can be known without running the function.

        Raises:
            ConfigError: Another function has this name already.
            TypeError: The parameter model accepts unknown keys.
        """
        if parameters.model_config.get("extra") != "forbid":
            raise TypeError(f'{parameters.__name__} must have model_config = ConfigDict(extra="forbid")')

        def decorator(function: F) -> F:
            known = self._entries.get(name)
            if known is not None and _identity(known.function) != _identity(function):
                raise ConfigError(
                    f"{self.kind} '{name}' is registered by both {_identity(known.function)} and "
                    f"{_identity(function)}; rename one"
                )
            text = description or (inspect.getdoc(function) or "").split("\n\n")[0]
            self._entries[name] = Entry(name, function, parameters, reference, " ".join(text.split()), traits)
            return function

        return decorator

    def get(self, name: str, where: str = "") -> Entry:
        """Return the entry called ``name``.

        Args:
            name: Name to look up.
            where: Place in the configuration, named in the message.

        Raises:
            ConfigError: There is no such entry; the line names the nearest and all names.
        """
        self._discover()
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        near = difflib.get_close_matches(str(name), self._entries, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(
            f"{where + ': ' if where else ''}unknown {self.kind} '{name}'; {hint}"
            f"known: {', '.join(self.names()) or 'none'}"
        )

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[Entry]:
        self._discover()
        return iter([self._entries[name] for name in sorted(self._entries)])

    def __len__(self) -> int:
        self._discover()
        return len(self._entries)

    def _discover(self) -> None:
        if self._discovered:
            return
        package = import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith("_"):
                continue
            try:
                import_module(f"{self.package}.{module.name}")
            except CurvelensError:
                raise
            except Exception as error:
                raise ConfigError(
                    f"{self.kind} file {self.package}.{module.name} cannot be imported "
                    f"({type(error).__name__}: {error}); correct it or remove it"
                ) from error
        self._discovered = True


def _identity(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"
