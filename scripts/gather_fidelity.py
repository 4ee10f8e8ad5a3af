"""Join the shards of P_MSE and summarise them."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import fidelity

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
test = tables.collect(snakemake.input.shards, fidelity.FIDELITY)
tables.write(test, fidelity.FIDELITY, snakemake.output.images, snakemake.output.images_csv)
summary = fidelity.summarise(test, snakemake.params.source, snakemake.params.architecture)
tables.write(summary, fidelity.FIDELITY_SUMMARY, snakemake.output.summary, snakemake.output.summary_csv)
