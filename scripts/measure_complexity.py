"""Measure the error of SmoothHess against gradient calls and dimension, and the powers that it follows."""

from typing import TYPE_CHECKING

from curvelens import devices, jobs, tables
from curvelens.experiments.complexity import complexity
from curvelens.summaries.complexity import COMPLEXITY, COMPLEXITY_RATES, rates

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
errors = complexity(
    **snakemake.params.settings,
    seed=snakemake.params.seed,
    device=devices.device(snakemake.params.device, snakemake.resources.gpu),
)
errors = tables.write(errors, COMPLEXITY, snakemake.output.errors, snakemake.output.errors_csv)
tables.write(rates(errors), COMPLEXITY_RATES, snakemake.output.rates, snakemake.output.rates_csv)
