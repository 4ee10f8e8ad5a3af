"""From a text notebook to one HTML file: jupytext reads it, papermill runs it, nbconvert sets it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import DataError
from curvelens.writing import atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode

LARGEST_MIB = 25.0  # what can still be mailed
TEMPLATE = "curvelens"
logger = logging.getLogger(__name__)
_BLOCK_MATH = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE_MATH = re.compile(r"(?<![\\$\w])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\w)")
_HEADING = re.compile(r"^(#{2,4}) +(.+?) *$", re.MULTILINE)
_FETCHED = {"src", "srcset", "poster", "data", "action", "background"}
_FORBIDDEN = {"script", "iframe", "object", "embed", "base"}
_STYLED = re.compile(r"url\(\s*[\"']?(?!data:)[^\"')\s]+|@import", re.IGNORECASE)


def render(
    notebook: Path, parameters: Mapping[str, Any], output: Path, workdir: Path, log: Path | None = None
) -> Path:
    """Run a text notebook and write it as one HTML file that needs nothing else.

    Args:
        notebook: A percent script; beside it lies ``template/curvelens``. It runs in the current folder.
        parameters: Values for its cell tagged ``parameters``, as JSON allows.
        output: The HTML file; written only if everything worked.
        workdir: Where the notebook and its executed copy are kept, to look into after an error.
        log: File that the output of the notebook's cells goes to; None leaves it in the executed copy alone.

    Returns:
        ``output``.

    Raises:
        DataError: A cell failed (the line names the cell and the error), or the page would load something
            from elsewhere, or it is larger than :data:`LARGEST_MIB`.
    """
    notebook, workdir = Path(notebook), Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    executed = _execute(notebook, parameters, workdir, log)
    page = _convert(executed, notebook.parent / "template")
    _check_self_contained(page, notebook)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    logger.info("wrote %s (%.1f MiB)", output, len(page.encode()) / 2**20)
    return Path(output)


def _execute(notebook: Path, parameters: Mapping[str, Any], workdir: Path, log: Path | None) -> NotebookNode:
    import jupytext
    import nbformat
    import papermill
    from traitlets.config import Config

    if not notebook.is_file():
        raise DataError(f"{notebook}: no such notebook; correct the path")
    source, target = workdir / f"{notebook.stem}.ipynb", workdir / f"{notebook.stem}.executed.ipynb"
    node = jupytext.read(notebook)
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, cell in enumerate(node.cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(node, source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_private_jupyter(workdir))
        streams = stack.enter_context(Path(log).open("a", encoding="utf-8")) if log is not None else None
        try:
            return papermill.execute_notebook(
                source,
                target,
                dict(parameters),
                kernel_name="python3",
                cwd=Path.cwd(),
                progress_bar=False,
                stdout_file=streams,
                stderr_file=streams,
                config=Config({"KernelManager": {"transport_encryption": "auto"}}),
            )
        except papermill.PapermillExecutionError as error:
            raise DataError(
                f"{notebook}: cell {error.exec_count} failed with {error.ename}: "
                f"{' '.join(str(error.evalue).split())}; "
                f"the executed copy is {target}"
            ) from error


@contextlib.contextmanager
def _private_jupyter(workdir: Path) -> Iterator[None]:
    """Keep the kernel's files out of the user's home, which a cluster may not let us write."""
    folders = {name: str((workdir / ".jupyter").resolve()) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR")}
    changed = {**folders, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _convert(node: NotebookNode, templates: Path) -> str:
    from nbconvert import HTMLExporter

    if not (templates / TEMPLATE).is_dir():
        raise DataError(f"{templates / TEMPLATE}: no such template; it belongs beside the notebook")
    contents = []
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source, found = _headings(mathml(cell.source))
            contents += found
    exporter = HTMLExporter(
        template_name=TEMPLATE, extra_template_basedirs=[str(templates)], exclude_anchor_links=True
    )
    body, _ = exporter.from_notebook_node(node, resources={"contents": contents, "title": _title(node)})
    return str(body)


def _title(node: NotebookNode) -> str:
    given = node.metadata.get("papermill", {}).get("parameters", {}).get("contents", {})
    return str(given.get("title", "Report"))


def _headings(markdown: str) -> tuple[str, list[tuple[str, str]]]:
    """Give headings ids, and return those of the second level with their text, for the table of contents."""
    contents = []

    def numbered(match: re.Match[str]) -> str:
        level, text = len(match[1]), match[2]
        anchor = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
        if level == 2:
            contents.append((anchor, text))
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    return _HEADING.sub(numbered, markdown), contents


def mathml(markdown: str) -> str:
    """Replace ``$$TeX$$`` and ``$TeX$`` in a text by MathML, which browsers set without any script."""
    from latex2mathml.converter import convert

    text = _BLOCK_MATH.sub(lambda match: "\n" + convert(match[1].strip(), display="block") + "\n", markdown)
    return _INLINE_MATH.sub(lambda match: convert(match[1]), text)


class _Loads(HTMLParser):
    """Collects what a page would load or run; text, such as the name of a picture, is not looked at."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.outside: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        known = {name: value or "" for name, value in attrs}
        if tag in _FORBIDDEN or (tag == "link" and not known.get("href", "").startswith("data:")):
            self.outside.append(self.get_starttag_text() or tag)
        for name, value in known.items():
            fetched = name in _FETCHED and value and not value.lstrip().startswith("data:")
            run = name.startswith("on") or value.lstrip().lower().startswith("javascript:")
            if fetched or run:
                self.outside.append(f"{name}={value}")
            if name == "style":
                self._styled(value)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._styled(data)

    def _styled(self, text: str) -> None:
        self.outside += [match[0] for match in _STYLED.finditer(text)]


def _check_self_contained(page: str, notebook: Path) -> None:
    found = _Loads()
    found.feed(page)
    found.close()
    if found.outside:
        raise DataError(
            f"{notebook}: the page would load {found.outside[0][:80]!r}; put the content into the page as a "
            "data: address"
        )
    size = len(page.encode()) / 2**20
    if size > LARGEST_MIB:
        raise DataError(
            f"{notebook}: the page has {size:.1f} MiB, more than {LARGEST_MIB:g}; show fewer or smaller "
            "pictures"
        )
