"""Compute CASO with the Hessian held in each form."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import distances, selection
from curvelens.summaries.distances import FORM_COMPARISON

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = selection.take(store.load_image_set(snakemake.input.images), snakemake.params.images)
table = distances.compare_forms(
    model, images, c1=snakemake.params.c1, seed=snakemake.params.seed, device=device
)
tables.write(table, FORM_COMPARISON, snakemake.output.table, snakemake.output.csv)
