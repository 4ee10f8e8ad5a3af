"""Write down what a run made, from what and how, with checksums."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs, manifest, store

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
run = store.load_json(snakemake.input.run)
lock = Path(snakemake.input.lock)
contents = {
    "config": run["config"],
    "seed": run["config"]["seed"],
    "lock": {"name": lock.name, "sha256": store.sha256(lock)},
    "project": manifest.git_state(Path(snakemake.scriptdir)),
    "versions": run["versions"],
    "hardware": run["hardware"],
    "device": run["device"],
    "numerics": run["numerics"],
    "jobs": manifest.jobs(snakemake.params.benchmarks),
}
manifest.write(
    snakemake.output[0], contents, [*snakemake.input.files, snakemake.input.report, snakemake.input.run]
)
