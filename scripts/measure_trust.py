"""Measure trust radii on one shard of validation images, which choose parameters, and of test images."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from curvelens import devices, jobs, models, tables
from curvelens.experiments import selection, trust
from curvelens.summaries.trust import TRUST

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = dict(snakemake.params.settings)
counts = {"validation": settings.pop("validation_images"), "test": settings.pop("images")}
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
parts = []
for split, count in counts.items():
    images = selection.shard(
        snakemake.input[split], count, int(snakemake.wildcards.shard), snakemake.params.shards
    )
    part = trust.measure(model, images, split=split, seed=snakemake.params.seed, device=device, **settings)
    parts.append(part)
tables.write(pd.concat(parts), TRUST, snakemake.output[0])
