"""Join the shards of the index of explanations, and count the gradient calls that methods share."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import explanations

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
index = tables.collect(snakemake.input.index, explanations.EXPLANATIONS)
tables.write(index, explanations.EXPLANATIONS, snakemake.output.table, snakemake.output.csv)
shared = explanations.share(index)
tables.write(shared, explanations.SHARED_CALLS, snakemake.output.shared, snakemake.output.shared_csv)
