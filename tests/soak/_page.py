"""The page that a long trial leaves in docs/soak: what was run, when, on what, and what came out."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from curvelens.writing import atomic

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs/soak"


def write(name: str, title: str, parts: Iterable[str], pages: Path = PAGES) -> Path:
    """Write ``{name}.md``: title, command, date, commit, machine, then the parts, a blank line between them.

    Args:
        name: Name of the script, and of the page, without suffix.
        title: Heading.
        parts: Paragraphs and tables in Markdown.
        pages: Folder of the page.

    Returns:
        The page.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.machine()}"
    facts = {
        "command": f"`python tests/soak/{name}.py{''.join(' ' + shlex.quote(a) for a in sys.argv[1:])}`",
        "date": date.today().isoformat(),
        "commit": _commit(),
        "machine": f"{system}, {os.cpu_count()} cores, {memory:.0f} GiB of memory",
    }
    path = pages / f"{name}.md"
    with atomic(path) as temporary:
        text = "\n\n".join([f"# {title}", table(["", ""], facts.items()), *parts])
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _commit() -> str:
    # The other trials' pages may have been written just before this one's.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":!docs/soak")
    return _git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
