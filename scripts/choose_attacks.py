"""Choose the parameters of the attacks on validation images."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import attacks

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
validation = tables.collect(snakemake.input.shards, attacks.ATTACKS)
tables.write(attacks.choose(validation), attacks.ATTACK_CHOICES, snakemake.output.table, snakemake.output.csv)
