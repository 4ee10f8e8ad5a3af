"""Explain the images of one shard by one method."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs, models, store, tables
from curvelens.experiments import explanations, selection
from curvelens.summaries.explanations import EXPLANATIONS

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
device = jobs.device(snakemake.params.device)
model = models.load(Path(snakemake.input.network[0]).parent, device)
chosen = selection.take(store.load_image_set(snakemake.input.images), snakemake.params.images)
images = chosen.shard(int(snakemake.wildcards.shard), snakemake.params.shards)
arrays, index = explanations.explain_images(
    model,
    images,
    snakemake.wildcards.method,
    snakemake.params.parameters,
    scalar=snakemake.params.scalar,
    seed=snakemake.params.seed,
    device=device,
)
store.save_explanations(snakemake.output.arrays, arrays, images.ids)
tables.write(index, EXPLANATIONS, snakemake.output.index)
