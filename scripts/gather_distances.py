"""Join the shards of the CASO-against-CAFO table and summarise it."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import distances

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = tables.collect(snakemake.input.shards, distances.DISTANCES)
tables.write(table, distances.DISTANCES, snakemake.output.table, snakemake.output.csv)
summary = distances.summarise(table)
tables.write(summary, distances.DISTANCES_SUMMARY, snakemake.output.summary, snakemake.output.summary_csv)
