"""Explain the images on which CASO and CAFO agree most and least."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import distance_examples
from curvelens.summaries.distances import DISTANCES

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = snakemake.params.settings
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
arrays, ids = distance_examples.examples(
    model,
    store.load_image_set(snakemake.input.images),
    tables.read(snakemake.input.table, DISTANCES),
    settings["examples"],
    c1=settings["c1"],
    form=settings["curvature"],
    seed=snakemake.params.seed,
    device=device,
)
store.save_explanations(snakemake.output[0], arrays, ids)
