"""What code a result depends on: the modules that a stage imports, followed to the end, and one hash of them.

A workflow that names only a stage's entry module as an input would miss an edit two imports further down; one
that names the whole library would recompute everything after every edit. The import graph gives exactly what
is needed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from curvelens.errors import ArgumentError

_ROOT = Path(__file__).resolve().parent
_PACKAGE = _ROOT.name


def code_version(*modules: str) -> str:
    """Return a hash of the source of ``modules`` and of every curvelens module that they import.

    Comments and layout do not count, only what the parser sees: reformatting a file reruns nothing.

    Args:
        modules: Dotted names, e.g. ``"curvelens.experiments.spectra"``.

    Returns:
        Sixteen hexadecimal digits.

    Raises:
        ArgumentError: If a module does not exist.
    """
    digest = hashlib.blake2b(digest_size=8)
    for module in sorted(source_closure(*modules)):
        digest.update(f"{module}\n{_normalised(module)}\n".encode())
    return digest.hexdigest()


def source_closure(*modules: str) -> set[str]:
    """Return ``modules`` and every curvelens module that they import, directly or not, even in a function.

    Raises:
        ArgumentError: If a module does not exist.
    """
    found: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            pending.extend(imports(module))
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Return the curvelens modules that ``module`` imports directly, anywhere in its text.

    Raises:
        ArgumentError: If the module does not exist.
    """
    return frozenset(name for name in _imported_names(_parse(module)) if _path(name) is not None)


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _PACKAGE)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == _PACKAGE:
            # `from curvelens import errors` imports a module, `from curvelens.errors import X` a name in one.
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in submodules if _path(name) is not None)
            if node.module != _PACKAGE:
                yield node.module


@cache
def _path(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != _PACKAGE:
        return None
    base = _ROOT.joinpath(*parts[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file() and base != _ROOT:
            return candidate
    return None


@cache
def _parse(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise ArgumentError(f"there is no module {module!r} in curvelens; name one that exists")
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def _normalised(module: str) -> str:
    return ast.dump(_parse(module))
