"""Join the shards of the table of sparsity along λ₁ and summarise it."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import sparsity

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = tables.collect(snakemake.input.shards, sparsity.SPARSITY)
tables.write(table, sparsity.SPARSITY, snakemake.output.table, snakemake.output.csv)
summary = sparsity.summarise(table)
tables.write(summary, sparsity.SPARSITY_SUMMARY, snakemake.output.summary, snakemake.output.summary_csv)
