"""Write down what a run made, from what and how, with checksums."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import crate, jobs, manifest, store

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
run = store.load_json(snakemake.input.run)
described = {Path(path).parent.name: store.load_json(path) for path in snakemake.input.datasets}
contents = {
    "config": run["config"],
    "seed": run["config"]["seed"],
    "lock": snakemake.params.lock,
    "project": manifest.git_state(Path(snakemake.scriptdir)),
    "versions": run["versions"],
    "hardware": run["hardware"],
    "device": run["device"],
    "numerics": run["numerics"],
    "datasets": {
        name: {key: entry[key] for key in ("source", "licence", "sha256", "split_seed", "sizes")}
        for name, entry in described.items()
    },
    "jobs": manifest.jobs(snakemake.params.benchmarks),
}
# Tables have a twin for people, and the gallery is a folder.
twins = [Path(path).with_suffix(".csv") for path in snakemake.input.files if path.endswith(".parquet")]
pages = [path for index in snakemake.input.gallery for path in Path(index).parent.rglob("*")]
found = [path for path in (*twins, *pages) if path.is_file() and not path.name.startswith(".")]
files = [
    *snakemake.input.files,
    *snakemake.input.datasets,
    snakemake.input.report,
    snakemake.input.run,
    *found,
]
written = manifest.write(snakemake.output.manifest, contents, files)
store.save_json(snakemake.output.crate, crate.metadata(written, datetime.now(UTC)))
