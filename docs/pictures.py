"""Put pictures and numbers of a finished run into README.md and docs/images.

    python docs/pictures.py [--results results] [--experiment mnist]

Copies the chosen figures of the experiment and rewrites what stands between the markers ``begin`` and ``end``
of README.md, from the texts that were computed with the figures and from the tables. Commit both together.
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
PICTURES = ("overview", "explanations")
MARKED = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def texts(figures: Path, name: str) -> dict[str, Any]:
    """Return finding, caption, alternative text and file name of a figure."""
    read: dict[str, Any] = json.loads((figures / f"{name}.json").read_text(encoding="utf-8"))
    return read


def picture(figures: Path, images: Path, name: str) -> str:
    """Copy a figure and return the HTML that shows it."""
    told = texts(figures, name)
    images.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(figures / told["wide"], images / told["wide"])
    alt = html.escape(" ".join(told["alt"].split()), quote=True)
    return f'<img src="docs/images/{told["wide"]}" alt="{alt}" width="100%">'


def findings(figures: Path) -> str:
    """Return what the figures found, as a list, in the order in which the report tells it."""
    from curvelens.figures import specs

    names = [spec.name for spec in specs() if (figures / f"{spec.name}.json").is_file()]
    return "\n".join(f"- {finding}" for name in names if (finding := texts(figures, name)["finding"]))


def numbers(tables: Path) -> str:
    """Return P_MSE of the predicted logit and post-hoc accuracy at the three largest sizes, as a table."""
    import pandas as pd

    from curvelens.figures.wording import number, percent
    from curvelens.summaries.attacks import METHODS

    fidelity = pd.read_parquet(tables / "fidelity.parquet")
    fidelity = fidelity[(fidelity["scalar"] == "predicted_logit") & (fidelity["law"] == "ball")]
    attacks = pd.read_parquet(tables / "attacks.parquet")
    error = fidelity.pivot_table("mean", "method", "radius").reindex(METHODS)
    stood = attacks.pivot_table("post_hoc_accuracy", "method", "epsilon").reindex(METHODS).iloc[:, -3:]
    header = [
        "local model",
        *(f"P_MSE, ε = {radius:g}" for radius in error.columns),
        *(f"unchanged, ε = {epsilon:g}" for epsilon in stood.columns),
    ]
    rows = [header, ["---"] * len(header)]
    for name in METHODS:
        rows.append([name, *map(number, error.loc[name]), *map(percent, stood.loc[name])])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def origin(results: Path, experiment: str) -> str:
    """Say which run the numbers are from, and on how many images."""
    report = results / "report" / "index.html"
    day = datetime.datetime.fromtimestamp(report.stat().st_mtime, tz=datetime.UTC).date().isoformat()
    seeds = {
        json.loads(path.read_text(encoding="utf-8"))["seed"] for path in results.glob("models/*/model.json")
    }
    seed = ", ".join(map(str, sorted(seeds)))
    return f"From the run of `config/config.yaml` (experiment `{experiment}`, seed {seed}) on {day}."


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
    if not (figures / f"{PICTURES[0]}.json").is_file():
        raise SystemExit(f"{figures}: has no {PICTURES[0]}.json; finish a run first (make report)")
    parts = {name: picture(figures, images, name) for name in PICTURES}
    parts["findings"] = f"{findings(figures)}\n\n{origin(given.results, given.experiment)}"
    parts["numbers"] = numbers(given.results / "tables" / given.experiment)
    given.page.write_text(fill(given.page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    print(f"written: {given.page.name}, {', '.join(sorted(path.name for path in images.iterdir()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
