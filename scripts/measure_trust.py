"""Measure trust radii on one shard: validation images, which choose parameters, or test images."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, tables
from curvelens.experiments import selection, trust
from curvelens.summaries.trust import TRUST

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
split = snakemake.wildcards.split
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = selection.shard(
    snakemake.input.images, snakemake.params.images, int(snakemake.wildcards.shard), snakemake.params.shards
)
table = trust.measure(
    model,
    images,
    split=split,
    **snakemake.params.settings,
    seed=snakemake.params.seed,
    device=device,
)
tables.write(table, TRUST, snakemake.output[0])
