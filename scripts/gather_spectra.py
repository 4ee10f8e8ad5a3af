"""Join the shards of the Hessian spectra and summarise them."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import spectra

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = tables.collect(snakemake.input.spectra, spectra.SPECTRA)
tables.write(table, spectra.SPECTRA, snakemake.output.table, snakemake.output.csv)
eigenvalues = tables.collect(snakemake.input.eigenvalues, spectra.EIGENVALUES)
tables.write(eigenvalues, spectra.EIGENVALUES, snakemake.output.eigenvalues)
summary = spectra.summarise(table)
tables.write(summary, spectra.SPECTRA_SUMMARY, snakemake.output.summary, snakemake.output.summary_csv)
