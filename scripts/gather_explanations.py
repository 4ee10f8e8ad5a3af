"""Join the shards of the index of explanations."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries.explanations import EXPLANATIONS

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
index = tables.collect(snakemake.input.index, EXPLANATIONS)
tables.write(index, EXPLANATIONS, snakemake.output.table, snakemake.output.csv)
