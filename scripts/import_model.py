"""Check weights that were trained elsewhere against their architecture, and store them as safetensors."""

from typing import TYPE_CHECKING

from curvelens import jobs, models, store

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = snakemake.params.settings
model = models.build(**models.described(settings, store.load_json(snakemake.input.info)))
if snakemake.input.weights:
    models.load_weights(model, snakemake.input.weights, settings["weights_sha256"])
models.save_weights(model, snakemake.output.weights)
