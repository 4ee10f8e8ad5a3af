"""Compare CASO with CAFO on the images of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, tables
from curvelens.experiments import distances, selection
from curvelens.summaries.distances import DISTANCES

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = snakemake.params.settings
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = selection.shard(
    snakemake.input.images, settings["images"], int(snakemake.wildcards.shard), snakemake.params.shards
)
table = distances.distances(
    model,
    images,
    c1=settings["c1"],
    form=settings["curvature"],
    seed=snakemake.params.seed,
    device=device,
)
tables.write(table, DISTANCES, snakemake.output[0])
