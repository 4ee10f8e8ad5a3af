"""Gather what context-aware explanations were computed with, and compare the maps of all methods."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import explanations, map_agreement

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
index = tables.read(snakemake.input.index, explanations.EXPLANATIONS)
for table, name in zip(
    map_agreement.compare(index, snakemake.input.maps), ("context_aware", "map_agreement"), strict=True
):
    tables.write(table, tables.SCHEMAS[name], snakemake.output[name], snakemake.output[f"{name}_csv"])
