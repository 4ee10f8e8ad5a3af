"""Measure P_MSE on the images of one shard: validation over the whole grid, test with the choices."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs, models, store, tables, targets
from curvelens.experiments import fidelity, selection
from curvelens.summaries.fidelity import FIDELITY, FIDELITY_CHOICES

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, split = snakemake.params.settings, snakemake.wildcards.split
device = jobs.device(snakemake.params.device)
model = models.load(Path(snakemake.input.network[0]).parent, device)
validation = store.load_image_set(snakemake.input.validation)
neuron = targets.inner_neuron(model, settings["neuron_class"], validation.tensor().to(device))
count = settings["images"] if split == "test" else settings["validation_images"]
images = selection.take(store.load_image_set(snakemake.input.images), count)
choices = tables.read(snakemake.input.choices, FIDELITY_CHOICES) if split == "test" else None
table = fidelity.measure(
    model,
    images.shard(int(snakemake.wildcards.shard), snakemake.params.shards),
    split=split,
    radii=settings["radii"],
    laws=settings["laws"],
    scalars=settings["scalars"],
    neuron=neuron,
    sigma_factors=settings["sigma_factors"],
    betas=settings["betas"],
    choices=choices,
    calls=settings["calls"],
    estimator=settings["estimator"],
    samples=settings["samples"],
    seed=snakemake.params.seed,
    device=device,
)
tables.write(table, FIDELITY, snakemake.output[0])
