"""Join the shards of the table of super-pixel interactions."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries.superpixels import SUPERPIXELS

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = tables.collect(snakemake.input.shards, SUPERPIXELS)
tables.write(table, SUPERPIXELS, snakemake.output.table, snakemake.output.csv)
