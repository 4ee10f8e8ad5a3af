"""Measure what Singla et al. 2019 prove or promise of the Hessian of the loss, of CASO and of its solvers."""

from typing import TYPE_CHECKING

from curvelens import devices, jobs, tables
from curvelens.experiments import convergence, rank_one, relaxation, theorems
from curvelens.summaries.theorems import CONCAVITY, CONVERGENCE, HESSIAN_FACTS, RANK_ONE, RELAXATION

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, output = snakemake.params.settings, snakemake.output
where = {
    "seed": snakemake.params.seed,
    "device": devices.device(snakemake.params.device, snakemake.resources.gpu),
}
facts, concavity = theorems.facts(**settings["facts"], **where)
tables.write(facts, HESSIAN_FACTS, output.facts, output.facts_csv)
tables.write(concavity, CONCAVITY, output.concavity, output.concavity_csv)
ranks = rank_one.rank_one(**settings["rank_one"], **where)
tables.write(ranks, RANK_ONE, output.rank_one, output.rank_one_csv)
supports = relaxation.relaxation(**settings["relaxation"], **where)
tables.write(supports, RELAXATION, output.relaxation, output.relaxation_csv)
steps = convergence.convergence(**settings["convergence"], **where)
tables.write(steps, CONVERGENCE, output.convergence, output.convergence_csv)
