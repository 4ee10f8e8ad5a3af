"""Functions of the user's own code, named ``package.module:function``: where they are, which version, loaded.

Loading one executes that code, as any import does. Finding it and its version does not: the configuration is
checked, and jobs are planned, before anything of it runs.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from curvelens.errors import ConfigError

_INSTALLED = {"site-packages", "dist-packages"}


def locate(function: str, folder: str | Path | None = None) -> Path:
    """Return the file of a function's module, without importing anything.

    Args:
        function: ``package.module:function``.
        folder: Where to look first; None looks among installed packages.

    Raises:
        ConfigError: There is no such folder or module, or it is no Python source file.
    """
    module = function.partition(":")[0]
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"function {function}: there is no folder {folder}; correct `folder`")
    path = _file(module, None if folder is None else Path(folder).resolve())
    if path is None:
        where = "among the installed packages" if folder is None else f"in {folder}"
        raise ConfigError(
            f"function {function}: there is no module {module} {where}; install its package, or name with "
            "`folder` the folder that holds it"
        )
    return path


def own_code_version(function: str, folder: str | Path | None = None) -> str:
    """Return what changes when a function's code does.

    That is a hash of its module and of all modules beside it that it imports, directly or not; comments and
    layout do not count. Of a package that was installed as a whole it is the distribution's version.

    Args:
        function: ``package.module:function``.
        folder: Where its module lies; None for an installed package.

    Raises:
        ConfigError: There is no such module, or it is not valid Python.
    """
    path = locate(function, folder)
    module = function.partition(":")[0]
    if _INSTALLED & set(path.parts):
        names = packages_distributions().get(module.partition(".")[0], [])
        if names:
            return " ".join(f"{name} {version(name)}" for name in sorted(set(names)))
    root = None if folder is None else Path(folder).resolve()
    digest = hashlib.blake2b(digest_size=8)
    for name, file in sorted(_closure(module, root).items()):
        digest.update(f"{name}\n{ast.dump(_parsed(file))}\n".encode())
    return digest.hexdigest()


def load(function: str, folder: str | Path | None = None) -> Callable[..., Any]:
    """Import a function, which executes its module.

    Args:
        function: ``package.module:function``; after the colon dots may follow, as in ``Network.small``.
        folder: Where its module lies; it stays on the path on which Python looks for modules.

    Raises:
        ConfigError: The module is missing, cannot be imported or is another one of the same name, or it has
            no such function.
    """
    expected = locate(function, folder)
    module_name, _, attribute = function.partition(":")
    if folder is not None and (root := str(Path(folder).resolve())) not in sys.path:
        sys.path.insert(0, root)
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs whatever the module says
        raise ConfigError(
            f"function {function}: {module_name} cannot be imported ({_told(error)}); correct {expected}, or "
            "install what it needs"
        ) from error
    _require_same(function, module, expected)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise ConfigError(
            f"function {function}: {expected} has no function {attribute}; it has "
            f"{', '.join(names[:8]) or 'none'}"
        )
    loaded: Callable[..., Any] = found
    return loaded


def _require_same(function: str, module: ModuleType, expected: Path) -> None:
    file = getattr(module, "__file__", None)
    if file is None or Path(file).resolve() != expected.resolve():
        raise ConfigError(
            f"function {function}: Python knows another module of this name, {file}; rename {expected}"
        )


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _file(module: str, root: Path | None) -> Path | None:
    """Return the source file of a module below ``root``, or installed, without importing its parents."""
    top, *rest = module.split(".")
    try:
        spec = PathFinder.find_spec(top, [str(root)]) if root is not None else find_spec(top)
        for name in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    except (ImportError, ValueError):
        return None
    origin = spec.origin if spec is not None else None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _closure(module: str, root: Path | None) -> dict[str, Path]:
    """Return a module and what it imports of its own folder, or of its own package: files by name."""
    own = module.partition(".")[0]
    found: dict[str, Path] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        path = _file(name, root) if root is not None or name.partition(".")[0] == own else None
        if path is None or name in found:
            continue
        found[name] = path
        pending.extend(_imports(path, name, path.name == "__init__.py"))
        pending.append(name.rpartition(".")[0] or name)  # importing a module runs its packages as well
    return found


def _imports(path: Path, module: str, is_package: bool) -> Iterator[str]:
    """Yield the names of modules that a file may import."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


@cache
def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path}: is not valid Python ({_told(error)}); correct it") from error
