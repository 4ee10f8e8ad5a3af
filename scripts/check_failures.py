"""Fail when too many images failed; everything that was computed stays."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import failures

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
failures.check(tables.read(snakemake.input.table, failures.FAILURES), snakemake.params.threshold)
