"""Train one network; an interrupted training goes on where it was."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables, training
from curvelens.schedules import Training

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, seed, name = snakemake.params.settings, snakemake.params.seed, snakemake.wildcards.model
architecture = models.described(settings, store.load_json(snakemake.input.info))
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.build(**architecture, seed=seed, name=name).to(device)
models.probe(model, **architecture)
history = training.train(
    model,
    store.load_image_set(snakemake.input.train),
    store.load_image_set(snakemake.input.validation),
    Training.model_validate(settings["training"]),
    seed=seed,
    name=name,
    checkpoint=snakemake.params.checkpoint,
    threads=snakemake.threads,
)
tables.write(history, training.HISTORY, snakemake.output.history)
models.save_weights(model, snakemake.output.weights)
Path(snakemake.params.checkpoint).unlink(missing_ok=True)
