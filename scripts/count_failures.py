"""Count failed images in every per-image table."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import failures

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
paths = [Path(path) for path in snakemake.input.tables]
described = [Path(path) for path in snakemake.input.datasets]
counted = failures.count(
    {(path.parent.name, path.stem): path for path in paths}, {path.parent.name: path for path in described}
)
tables.write(counted, failures.FAILURES, snakemake.output.table, snakemake.output.csv)
