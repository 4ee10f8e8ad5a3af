"""Sum interactions over super-pixels of the images of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import selection, superpixels
from curvelens.sections.superpixels import Superpixels
from curvelens.summaries.superpixels import SUPERPIXELS

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = Superpixels.model_validate(snakemake.params.settings)
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = selection.shard(
    snakemake.input.images, settings.images, int(snakemake.wildcards.shard), snakemake.params.shards
)
table, arrays = superpixels.superpixels(model, images, settings, seed=snakemake.params.seed, device=device)
tables.write(table, SUPERPIXELS, snakemake.output.table)
store.save_explanations(snakemake.output.arrays, arrays, images.ids)
