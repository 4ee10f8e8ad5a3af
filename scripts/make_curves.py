"""Simulate the exhalation curves of a study, and read the recorded ones that it names."""

from typing import TYPE_CHECKING

from curvelens import jobs, store, studies, tables
from curvelens.experiments.exhalations import make_curves
from curvelens.summaries.spirometry import SPIROMETRY_CURVES

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
study = studies.Spirometry.model_validate({"kind": "spirometry", **snakemake.params.settings})
curves, table = make_curves(study, snakemake.params.seed)
store.save_npz(snakemake.output.curves, curves.arrays())
tables.write(table, SPIROMETRY_CURVES, snakemake.output.table, snakemake.output.csv)
