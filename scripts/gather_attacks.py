"""Join the shards of the attacks and summarise them."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import attacks, paired_attacks

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
test = tables.collect(snakemake.input.shards, attacks.ATTACKS)
tables.write(test, attacks.ATTACKS, snakemake.output.images, snakemake.output.images_csv)
summary = attacks.summarise(
    test, tables.read(snakemake.input.choices, attacks.ATTACK_CHOICES), snakemake.params.source
)
tables.write(summary, attacks.ATTACK_SUMMARY, snakemake.output.summary, snakemake.output.summary_csv)
tables.write(
    paired_attacks.paired(test),
    paired_attacks.ATTACKS_PAIRED,
    snakemake.output.paired,
    snakemake.output.paired_csv,
)
