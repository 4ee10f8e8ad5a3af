"""Compare Hessians from smooth to nearly ReLU, and of several classes, on a few images of an experiment."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import selection, spectra, spectra_sweep
from curvelens.summaries.spectra import SWEEP

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, names = snakemake.params.settings, snakemake.params.models
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
folders = {Path(path).parent for path in snakemake.input.networks}
networks = {folder.name: models.load(folder, device) for folder in folders}
images = store.load_image_set(snakemake.input.images)
right = [selection.correctly_classified(network, images, device) for network in networks.values()]
table = spectra_sweep.sweep(
    networks[names[0]],
    networks.get(names[-1]) if len(names) > 1 else None,
    selection.take(images, settings["compared_images"], eligible=np.logical_and.reduce(right)),
    (names[0], names[-1]),
    settings=spectra_sweep.Settings(
        betas=settings["betas"],
        classes=settings["classes"],
        segment=settings["segment"],
        thresholds=spectra.Thresholds(near_zero=settings["near_zero"]),
    ),
    device=device,
)
tables.write(table, SWEEP, snakemake.output.table, snakemake.output.csv)
