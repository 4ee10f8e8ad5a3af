"""Figures of the report: each is one module that registers how it is drawn from tables and what it says.

A figure is added by one new file in this folder, called like the figure, that calls :func:`register`; nothing
else is
edited. Its texts (finding, caption, alternative text) are functions of the same tables as the picture, so
they cannot contradict it. Modules load pandas and matplotlib on first use: a workflow may read the registry
for little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.figures.style import NARROW, RC, WIDE, Layout, save
from curvelens.registry import Registry
from curvelens.store import save_json
from curvelens.writing import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = Mapping[str, Any]
"""Inputs of a figure by name, as :func:`curvelens.figures.inputs.load` reads them."""

Inputs = Mapping[str, Path | Sequence[Path]]


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the report.

    Attributes:
        name: Its file name without suffix, and that of its module.
        tables: Names of the inputs it cannot do without.
        draw: ``draw(tables, layout) -> Figure``.
        caption: ``caption(tables) -> str``: the finding, what is drawn, and the n. Plain text.
        alt: ``alt(tables) -> str``: what a reader who cannot see the picture must know. Plain text.
        optional: Names of inputs it uses where they exist.
        finding: ``finding(tables) -> str``: one sentence for the first page, empty where there is nothing to
            say.
        rank: Place of its finding on the first page, smallest first.
        suffix: ``.svg`` for drawings, ``.png`` for pictures.
    """

    name: str
    tables: tuple[str, ...]
    draw: Callable[[Tables, Layout], Figure]
    caption: Callable[[Tables], str]
    alt: Callable[[Tables], str]
    optional: tuple[str, ...] = ()
    finding: Callable[[Tables], str] | None = None
    rank: int = 100
    suffix: str = ".svg"

    def __call__(self, tables: Tables, layout: Layout) -> Figure:
        """Draw the figure."""
        return self.draw(tables, layout)


REGISTRY = Registry("figure", __name__)


def register(spec: FigureSpec) -> FigureSpec:
    """Add a figure to :data:`REGISTRY`.

    Raises:
        ConfigError: Another figure has this name.
    """
    return REGISTRY.register(spec.name, description=spec.caption.__doc__ or spec.name)(spec)


def get(name: str) -> FigureSpec:
    """Return one figure.

    Raises:
        ConfigError: No figure has this name.
    """
    return REGISTRY.get(name).function  # type: ignore[return-value]


def specs() -> list[FigureSpec]:
    """Return every figure, in the order in which their findings are told."""
    found: list[FigureSpec] = [entry.function for entry in REGISTRY]  # type: ignore[misc]
    return sorted(found, key=lambda spec: (spec.rank, spec.name))


def outputs(path: Path) -> list[Path]:
    """Return all files that :func:`draw` writes for ``path``: page, telephone, texts."""
    return [path, path.with_name(f"{path.stem}.narrow{path.suffix}"), path.with_suffix(".json")]


def draw(name: str, inputs: Inputs, output: Path) -> list[Path]:
    """Draw one figure for a page and for a telephone, and write its texts beside it.

    Args:
        name: A registered figure.
        inputs: Files by input name; a list of files is read as one table.
        output: ``{name}.svg`` or ``{name}.png``. Beside it ``{name}.narrow.svg`` (or png) and ``{name}.json``
            with the keys name, caption, alt, finding, wide, narrow (the two file names).

    Returns:
        The files written, as :func:`outputs` lists them.

    Raises:
        ConfigError: No figure has this name.
        DataError: An input is missing or unreadable.
    """
    import matplotlib

    from curvelens.figures.inputs import load

    spec = get(name)
    absent = [table for table in spec.tables if table not in inputs]
    if absent:
        raise DataError(f"figure {name}: no input {absent[0]!r}; add it to the rule that draws this figure")
    tables = load({key: inputs[key] for key in (*spec.tables, *spec.optional) if key in inputs})
    files = outputs(Path(output))
    try:
        texts = _texts(spec, tables)
        with matplotlib.rc_context(RC):
            for layout, path in zip((WIDE, NARROW), files[:2], strict=True):
                with atomic(path) as temporary:
                    save(spec.draw(tables, layout), temporary)
    except KeyError as error:
        raise DataError(
            f"figure {name}: an input has no column {error}; make its tables again with this version"
        ) from error
    save_json(files[2], {"name": name, **texts, "wide": files[0].name, "narrow": files[1].name})
    return files


def _texts(spec: FigureSpec, tables: Tables) -> dict[str, str]:
    return {
        "caption": spec.caption(tables),
        "alt": spec.alt(tables),
        "finding": spec.finding(tables) if spec.finding else "",
    }


def findings(tables: Tables) -> list[str]:
    """Return one sentence for each figure whose tables are there and that has something to say, in the order
    told.

    Args:
        tables: Tables by name, as :func:`figures.inputs.load` reads them.
    """
    able = [
        spec for spec in specs() if spec.finding is not None and all(name in tables for name in spec.tables)
    ]
    return [told for spec in able if spec.finding is not None and (told := spec.finding(tables))]
