"""Compute the Hessian spectra of one network on the images of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import selection, spectra
from curvelens.summaries.spectra import EIGENVALUES, SPECTRA

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, name = snakemake.params.settings, snakemake.wildcards.model
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
folders = {Path(path).parent for path in snakemake.input.networks}
networks = {folder.name: models.load(folder, device) for folder in folders}
images = store.load_image_set(snakemake.input.images)
right = [selection.correctly_classified(network, images, device) for network in networks.values()]
images = selection.take(images, settings["images"], eligible=np.logical_and.reduce(right))
table, eigenvalues, arrays = spectra.spectra(
    networks[name],
    shard := images.shard(int(snakemake.wildcards.shard), snakemake.params.shards),
    None,
    name,
    snakemake.params.activation,
    settings=spectra.Settings(
        segment=settings["segment"],
        seed=snakemake.params.seed,
        thresholds=spectra.Thresholds(near_zero=settings["near_zero"]),
    ),
    device=device,
)
tables.write(table, SPECTRA, snakemake.output.spectra)
tables.write(eigenvalues, EIGENVALUES, snakemake.output.eigenvalues)
store.save_explanations(snakemake.output.eigenvectors, arrays, shard.ids)
