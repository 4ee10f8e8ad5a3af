"""Join the shards of judgements, summarise them, and average the deletion and insertion curves."""

from typing import TYPE_CHECKING

from curvelens import jobs, tables
from curvelens.summaries import judging

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = tables.collect(snakemake.input.shards, judging.JUDGEMENT_IMAGES)
tables.write(table, judging.JUDGEMENT_IMAGES, snakemake.output.images, snakemake.output.images_csv)
summary = judging.summarise(table, snakemake.params.seed)
tables.write(summary, judging.JUDGEMENT, snakemake.output.summary, snakemake.output.summary_csv)
curves = judging.curves(tables.collect(snakemake.input.curves, judging.CURVE_PARTS))
tables.write(curves, judging.JUDGEMENT_CURVES, snakemake.output.curves, snakemake.output.curves_csv)
