"""Join the shards of trust radii and summarise them."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import trust

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = tables.collect(snakemake.input.shards, trust.TRUST)
tables.write(table, trust.TRUST, snakemake.output.images, snakemake.output.images_csv)
summary = trust.summarise(table)
tables.write(summary, trust.TRUST_SUMMARY, snakemake.output.summary, snakemake.output.summary_csv)
