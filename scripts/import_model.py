"""Check weights that were trained elsewhere against their architecture, and store them as safetensors."""

from typing import TYPE_CHECKING

from curvelens import jobs, models, store

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = snakemake.params.settings
architecture = models.described(settings, store.load_json(snakemake.input.info))
if snakemake.input.weights:
    model = models.restore(snakemake.input.weights, settings["weights_sha256"], **architecture)
else:
    model = models.build(**architecture)
models.probe(model, **architecture)
models.save_weights(model, snakemake.output.weights)
