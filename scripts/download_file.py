"""Download one published file and check it."""

from typing import TYPE_CHECKING

from curvelens import jobs
from curvelens.datasets._download import fetch

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
fetch(snakemake.params.urls, snakemake.output[0], snakemake.params.sha256, most=snakemake.params.most)
