"""Choose the inner neuron that P_MSE is measured on."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store
from curvelens.experiments import inner_neurons

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
chosen = inner_neurons.choose(
    models.load(Path(snakemake.input.network[0]).parent, device),
    store.load_image_set(snakemake.input.train),
    store.load_json(snakemake.input.info)["class_names"],
    snakemake.params.neuron_class,
    device,
)
store.save_json(snakemake.output[0], chosen)
