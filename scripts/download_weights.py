"""Download a network's published weights and check them."""

from typing import TYPE_CHECKING

from curvelens import jobs
from curvelens.datasets._download import fetch

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
name = snakemake.wildcards.model
fetch(
    snakemake.params.urls,
    snakemake.output[0],
    snakemake.params.sha256,
    remedy=f"set models.{name}.weights to the file",
)
