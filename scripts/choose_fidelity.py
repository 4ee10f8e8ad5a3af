"""Choose sigma and beta on validation images."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import fidelity

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
validation = tables.collect(snakemake.input.shards, fidelity.FIDELITY)
chosen = fidelity.choose(validation)
tables.write(chosen, fidelity.FIDELITY_CHOICES, snakemake.output.table, snakemake.output.csv)
