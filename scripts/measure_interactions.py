"""Measure a network's interactions at every level of smoothing, beside the exact ones of its target."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, synthetic, tables
from curvelens.experiments import interactions
from curvelens.summaries.interactions import (
    INTERACTIONS,
    INTERACTIONS_NETWORK,
    INTERACTIONS_SUMMARY,
    INTERACTIONS_SURFACE,
    network_row,
    summarise,
)

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
params, output = snakemake.params, snakemake.output
model = models.load(Path(snakemake.input.info).parent, devices.device(params.device, snakemake.resources.gpu))
target = synthetic.TARGETS[params.target["target"]]()
settings = interactions.Settings(**params.settings, seed=params.seed)
measured = interactions.interactions(model, target, settings, snakemake.wildcards.study)
tables.write(measured, INTERACTIONS, output.table, output.csv)
summary = summarise(measured, params.summary["tolerance"])
tables.write(summary, INTERACTIONS_SUMMARY, output.summary, output.summary_csv)
network = network_row(store.load_json(snakemake.input.info))
tables.write(network, INTERACTIONS_NETWORK, output.network, output.network_csv)
surface = params.surface
surfaces = interactions.surfaces(model, target, surface["surface_sigma_squared"], surface["surface_points"])
tables.write(surfaces, INTERACTIONS_SURFACE, output.surface, output.surface_csv)
