"""Gather what context-aware explanations were computed with, and compare the maps of all methods."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import explanations, map_agreement

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
index = tables.read(snakemake.input.index, explanations.EXPLANATIONS)
maps = map_agreement.load(snakemake.input.maps)
for name, table in (
    ("context_aware", map_agreement.numbers(index, maps)),
    ("map_agreement", map_agreement.agreement(index, maps)),
):
    tables.write(table, tables.SCHEMAS[name], snakemake.output[name], snakemake.output[f"{name}_csv"])
