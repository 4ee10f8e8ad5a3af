"""Compute the shape of smoothing noise that follows the training images."""

from typing import TYPE_CHECKING

from curvelens import jobs, store
from curvelens.experiments import covariances

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
images = store.load_image_set(snakemake.input.train)
shape = covariances.shape(images, snakemake.wildcards.covariance)
store.save_npz(snakemake.output[0], {"shape": shape})
