"""Execute the report's notebook and write it as one HTML file."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens import jobs, reporting, store

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
config = snakemake.params.config
shown: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: {"figures": {}, "tables": {}})
for kind, suffix in (("figures", ".json"), ("tables", ".parquet")):
    for path in map(Path, snakemake.input[kind]):
        if path.suffix == suffix:
            shown[path.parent.name][kind][path.stem] = str(path)
for path in map(Path, snakemake.input.films):
    if path.suffix == ".json":
        shown[path.parent.name]["films"] = {
            path.stem: {
                "video": str(path.with_suffix(".mp4")),
                "poster": str(path.with_suffix(".png")),
                **store.load_json(path),
            }
        }
contents = {
    "title": config["report"]["title"],
    "experiments": {name: parts for name, parts in shown.items() if name not in config["studies"]},
    "studies": {name: shown[name] for name in config["studies"]},
    "models": {Path(path).parent.name: path for path in snakemake.input.models},
    "datasets": {Path(path).parent.name: path for path in snakemake.input.datasets},
    "benchmarks": sorted(map(str, Path(snakemake.params.benchmarks).rglob("*.tsv"))),
    "config": config,
    "gallery": store.load_json(snakemake.input.gallery) if snakemake.input.gallery else {},
}
# What else the tables come from, for programs: docs/replication.py names data, networks and machine by it.
store.save_json(snakemake.output.run, {"config": config, **reporting.machine(config["device"])})
reporting.render(
    Path(snakemake.params.text[0]),
    {"contents": contents},
    Path(snakemake.output.page),
    Path(snakemake.params.workdir),
    Path(snakemake.log[0]),
)
