"""What a result depends on, as hashes: the modules that a stage imports, followed to the end; given files.

A workflow that names only a stage's entry module as an input would miss an edit two imports further down; one
that names the whole library would recompute everything after every edit. The import graph gives exactly what
is needed.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from curvelens.errors import ArgumentError

_ROOT = Path(__file__).resolve().parent
_PACKAGE = _ROOT.name
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_version(*modules: str, script: str | Path | None = None) -> str:
    """Return a hash of the source of ``modules`` and of every curvelens module that they import.

    Comments, docstrings and layout do not count, only what is executed: reformatting a file reruns nothing.

    Args:
        modules: Dotted names, e.g. ``"curvelens.experiments.spectra"``.
        script: A file that is run rather than imported; it counts like a module.

    Returns:
        Sixteen hexadecimal digits.

    Raises:
        ArgumentError: If a module does not exist.
    """
    digest = hashlib.blake2b(digest_size=8)
    entries = set(modules)
    if script is not None:
        tree = _parse_file(Path(script))
        digest.update(f"{ast.dump(tree)}\n".encode())
        entries |= _needs(tree)[0]
    for module in sorted(source_closure(*entries)):
        digest.update(f"{module}\n{_normalised(module)}\n".encode())
    return digest.hexdigest()


def files_version(path: str | Path) -> str:
    """Return a hash of the files at or below ``path``: their names, their sizes, and what tables (.csv) say.

    Cheap enough for tens of thousands of pictures at every start. A picture that is replaced by another of
    exactly its size goes unnoticed; the date of a file does not count.

    Args:
        path: A file or folder; one that does not exist is told apart from an empty one.

    Returns:
        Sixteen hexadecimal digits.
    """
    path = Path(path)
    digest = hashlib.blake2b(f"{path.is_dir()}, {path.is_file()}\n".encode(), digest_size=8)
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names] or [path]
    for file in sorted(files):
        if file.is_file():
            content = file.read_bytes() if file.suffix == ".csv" else b""
            digest.update(f"{file.relative_to(path)}\n{file.stat().st_size}\n".encode() + content)
    return digest.hexdigest()


def source_closure(*modules: str) -> set[str]:
    """Return ``modules`` and every curvelens module that they run, directly or not, even in a function.

    What is imported for type checkers alone does not run. A package whose ``__init__`` only passes names on
    stands for the modules that define those that are asked for.

    Args:
        modules: Dotted names.

    Raises:
        ArgumentError: If a module does not exist.
    """
    found: set[str] = set()
    passing: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            followed, on_the_way = _needs(_parse(module))
            pending.extend(followed)
            passing |= on_the_way
    return found | passing


@cache
def imports(module: str) -> frozenset[str]:
    """Return the curvelens modules that ``module`` imports directly, anywhere in its text, as it names them.

    Raises:
        ArgumentError: If the module does not exist.
    """
    return frozenset(
        name
        for node in _import_statements(_parse(module), types=True)
        for name, _ in _imported(node)
        if _path(name) is not None
    )


@cache
def _needs(tree: ast.Module) -> tuple[frozenset[str], frozenset[str]]:
    """Return the modules that ``tree`` runs, and the packages that only pass names on to it."""
    followed: set[str] = set()
    passing: set[str] = set()
    for node in _import_statements(tree, types=False):
        for module, name in _imported(node):
            while name is not None and (origin := _passed_on(module).get(name)) is not None:
                passing.add(module)
                module, name = origin
            followed.add(module)
    return frozenset(filter(_path, followed)), frozenset(passing)


def _import_statements(tree: ast.AST, types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of a text, without those for type checkers alone unless ``types``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif types or not (isinstance(node, ast.If) and _is_name(node.test, "TYPE_CHECKING")):
            yield from _import_statements(node, types)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str | None]]:
    """Yield what an import of curvelens names: modules, and names in one."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, None) for alias in node.names if alias.name.split(".")[0] == _PACKAGE)
    elif node.module and node.module.split(".")[0] == _PACKAGE:
        for alias in node.names:
            # `from curvelens import errors` imports a module, `from curvelens.errors import X` a name in one.
            if _path(f"{node.module}.{alias.name}") is not None:
                yield f"{node.module}.{alias.name}", None
            else:
                yield node.module, alias.name


@cache
def _passed_on(module: str) -> dict[str, tuple[str, str | None]]:
    """Return where the names come from that a module imports, if it does nothing else."""
    path = _path(module)
    if path is None or path.name != "__init__.py":
        return {}
    origins: dict[str, tuple[str, str | None]] = {}
    for statement in _parse(module).body:
        if isinstance(statement, ast.ImportFrom):
            for (origin, name), alias in zip(_imported(statement), statement.names, strict=False):
                origins[alias.asname or alias.name] = (origin, name)
        elif isinstance(statement, ast.Assign) and _is_name(statement.targets[0], "__all__"):
            continue
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            return {}
    return origins


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


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
    return _parse_file(path)


@cache
def _parse_file(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _normalised(module: str) -> str:
    return ast.dump(_parse(module))
