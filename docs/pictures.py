"""Put pictures and numbers of a finished run into README.md and docs/images.

    python docs/pictures.py [--results results] [--experiment mnist]

Copies the chosen figures of the experiment and rewrites what stands between the markers ``begin`` and ``end``
of README.md, from the texts that were computed with the figures. Commit both together.
"""

from __future__ import annotations

import argparse
import datetime
import html
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIRST = "overview"
"""The picture that the page opens with."""
FURTHER = ("explanations",)
"""Those below it."""
MARKED = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def texts(figures: Path, name: str) -> dict[str, Any]:
    """Return finding, caption, alternative text and file name of a figure."""
    read: dict[str, Any] = json.loads((figures / f"{name}.json").read_text(encoding="utf-8"))
    return read


def picture(figures: Path, images: Path, name: str) -> str:
    """Copy a figure and return the HTML that shows it with its caption."""
    told = texts(figures, name)
    images.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(figures / told["wide"], images / told["wide"])
    alt = html.escape(" ".join(told["alt"].split()), quote=True)
    return f'<img src="docs/images/{told["wide"]}" alt="{alt}" width="100%">\n\n{told["caption"]}'


def findings(figures: Path) -> list[str]:
    """Return what the figures found, in the order of their files' ranks, as the report tells it."""
    from curvelens.figures import specs

    names = [spec.name for spec in specs() if (figures / f"{spec.name}.json").is_file()]
    return [finding for name in names if (finding := texts(figures, name)["finding"])]


def origin(results: Path, experiment: str) -> str:
    """Say which run the numbers are from."""
    report = results / "report" / "index.html"
    day = datetime.datetime.fromtimestamp(report.stat().st_mtime, tz=datetime.UTC).date().isoformat()
    tables = sorted((results / "benchmarks").rglob("*.tsv"))
    seconds = sum(float(table.read_text().splitlines()[1].split("\t")[0]) for table in tables)
    seeds = {
        json.loads(path.read_text(encoding="utf-8"))["seed"] for path in results.glob("models/*/model.json")
    }
    seed = ", ".join(map(str, sorted(seeds)))
    return (
        f"From the run of `config/config.yaml` (experiment `{experiment}`, seed {seed}) on {day}: "
        f"{len(tables)} jobs, {seconds / 60:.0f} minutes of their time in sum."
    )


def fill(page: str, parts: dict[str, str]) -> str:
    """Replace what stands between each pair of markers; every part must have its markers."""
    missing = parts.keys() - {match.group(2) for match in MARKED.finditer(page)}
    if missing:
        raise SystemExit(f"README.md has no markers for {', '.join(sorted(missing))}")
    return MARKED.sub(lambda match: f"{match.group(1)}{parts[match.group(2)]}\n{match.group(3)}", page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy the pictures and rewrite the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--experiment", default="mnist")
    parser.add_argument("--page", type=Path, default=ROOT / "README.md")
    given = parser.parse_args(arguments)
    figures, images = given.results / "figures" / given.experiment, given.page.parent / "docs" / "images"
    if not (figures / f"{FIRST}.json").is_file():
        raise SystemExit(f"{figures}: has no {FIRST}.json; finish a run first (make report)")
    parts = {
        "pictures": "\n\n".join(picture(figures, images, name) for name in (FIRST, *FURTHER)),
        "findings": "\n".join(f"- {finding}" for finding in findings(figures))
        + f"\n\n{origin(given.results, given.experiment)}",
    }
    given.page.write_text(fill(given.page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    print(f"written: {given.page.name}, {', '.join(sorted(path.name for path in images.iterdir()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
