"""Predict FEV1 of every exhalation curve, and explain some of the predictions by interval."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, studies, tables
from curvelens.experiments.exhalations import CurveSet, predict_curves
from curvelens.experiments.spirometry import explain_curves

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
study = studies.Spirometry.model_validate({"kind": "spirometry", **snakemake.params.settings})
kernels, seed = snakemake.wildcards.kernels, snakemake.params.seed
curves = CurveSet.from_arrays(store.load_npz(snakemake.input.curves))
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.info).parent, device)
made = explain_curves(study, model, kernels, curves, seed=seed, device=device)
made["predictions"] = predict_curves(model, kernels, curves)
for name, table in made.items():
    tables.write(table, tables.SCHEMAS[f"spirometry_{name}"], snakemake.output[name])
