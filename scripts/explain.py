"""Explain the images of one shard by every method of an experiment."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import explanations, selection
from curvelens.summaries.explanations import EXPLANATIONS

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
explained = explanations.explain_images(
    model,
    images,
    settings["methods"],
    scalar=settings["scalar"],
    trust=settings["trust"],
    seed=snakemake.params.seed,
    device=device,
)
for (arrays, index), stored, listed in zip(
    explained.values(), snakemake.output.arrays, snakemake.output.index, strict=True
):
    store.save_explanations(stored, arrays, images.ids)
    tables.write(index, EXPLANATIONS, listed)
