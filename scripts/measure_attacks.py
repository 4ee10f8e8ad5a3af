"""Attack the images of one shard: validation images over the whole grid, test images with the choices."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, tables
from curvelens.experiments import attacks, selection
from curvelens.summaries.attacks import ATTACK_CHOICES, ATTACKS

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, split = snakemake.params.settings, snakemake.wildcards.split
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = selection.shard(
    snakemake.input.images,
    snakemake.params.images,
    int(snakemake.wildcards.shard),
    snakemake.params.shards,
)
choices = tables.read(snakemake.input.choices, ATTACK_CHOICES) if split == "test" else None
table = attacks.attack_images(
    model,
    images,
    split=split,
    choices=choices,
    **settings,
    seed=snakemake.params.seed,
    device=device,
)
tables.write(table, ATTACKS, snakemake.output[0])
