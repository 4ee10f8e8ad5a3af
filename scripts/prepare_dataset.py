"""Read a data set and divide it."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import datasets, jobs

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, downloaded = snakemake.params.settings, snakemake.input.raw
datasets.prepare(
    settings["source"],
    Path(snakemake.output.info).parent,
    parameters=settings["parameters"],
    **settings["split"],
    seed=snakemake.params.seed,
    data_dir=Path(downloaded[0]).parent if downloaded else settings["data_dir"],
)
