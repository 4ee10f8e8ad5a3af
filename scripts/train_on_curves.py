"""Train the network with wide or narrow kernels on exhalation curves; an interrupted training goes on."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, studies, tables, training
from curvelens.experiments.exhalations import CurveSet, train_network

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
study = studies.Spirometry.model_validate({"kind": "spirometry", **snakemake.params.settings})
model, description, history = train_network(
    study,
    snakemake.wildcards.kernels,
    CurveSet.from_arrays(store.load_npz(snakemake.input.curves)),
    seed=snakemake.params.seed,
    device=devices.device(snakemake.params.device, snakemake.resources.gpu),
    checkpoint=snakemake.params.checkpoint,
    threads=snakemake.threads,
)
tables.write(history, training.REGRESSION_HISTORY, snakemake.output.history)
models.save(model, Path(snakemake.output.info).parent, **description)
Path(snakemake.params.checkpoint).unlink(missing_ok=True)
