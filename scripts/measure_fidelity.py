"""Measure P_MSE on the images of one shard: validation over the whole grid, test with the choices."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import fidelity, selection
from curvelens.summaries.fidelity import FIDELITY, FIDELITY_CHOICES

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, given = dict(snakemake.params.settings), snakemake.input
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
images = selection.shard(
    given.images, settings.pop("images"), int(snakemake.wildcards.shard), snakemake.params.shards
)
neuron = store.load_json(given.neuron) if given.neuron else None
shapes = {
    Path(file).stem: torch.from_numpy(store.load_npz(file, ["shape"])["shape"]) for file in given.shapes
}
table = fidelity.measure(
    models.load(Path(given.network[0]).parent, device),
    images,
    split=snakemake.wildcards.split,
    neuron=(neuron["module"], neuron["index"]) if neuron else None,
    shapes=shapes,
    choices=tables.read(given.choices, FIDELITY_CHOICES) if given.choices else None,
    seed=snakemake.params.seed,
    device=device,
    **settings,
)
tables.write(table, FIDELITY, snakemake.output[0])
