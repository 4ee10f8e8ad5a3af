"""Classify the test images of one experiment."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import evaluation, selection
from curvelens.summaries.evaluation import PREDICTIONS

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = store.load_image_set(snakemake.input.images)
if snakemake.params.images is not None:
    images = selection.take(images, snakemake.params.images)
origins = store.load_json(snakemake.input.info)["origins"]
table = evaluation.predictions(model, images, origins=origins, device=device)
tables.write(table, PREDICTIONS, snakemake.output.table, snakemake.output.csv)
