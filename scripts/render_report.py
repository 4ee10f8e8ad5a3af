"""Execute the report's notebook and write it as one HTML file."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs, reporting

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
config = snakemake.params.config
experiments: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: {"figures": {}, "tables": {}})
for kind, suffix in (("figures", ".json"), ("tables", ".parquet")):
    for path in map(Path, snakemake.input[kind]):
        if path.suffix == suffix:
            experiments[path.parent.name][kind][path.stem] = str(path)
contents = {
    "title": config["report"]["title"],
    "experiments": experiments,
    "models": {Path(path).parent.name: path for path in snakemake.input.models},
    "datasets": {Path(path).parent.name: path for path in snakemake.input.datasets},
    "benchmarks": sorted(map(str, Path(snakemake.params.benchmarks).rglob("*.tsv"))),
    "config": config,
}
reporting.render(
    Path(snakemake.input.notebook),
    {"contents": contents},
    Path(snakemake.output[0]),
    Path(snakemake.params.workdir),
    Path(snakemake.log[0]),
)
