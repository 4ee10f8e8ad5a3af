"""Sum up the predictions of one experiment: accuracy, confusion, calibration."""

from typing import TYPE_CHECKING

from curvelens import jobs, store, tables
from curvelens.summaries import evaluation

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
output = snakemake.output
predictions = tables.read(snakemake.input.table, evaluation.PREDICTIONS)
summary, reliability = evaluation.summarise(predictions, snakemake.params.bins, snakemake.params.seed)
confusion = evaluation.confusion(predictions, store.load_json(snakemake.input.info)["class_names"])
tables.write(summary, evaluation.EVALUATION, output.summary, output.summary_csv)
tables.write(reliability, evaluation.RELIABILITY, output.reliability, output.reliability_csv)
tables.write(confusion, evaluation.CONFUSION, output.confusion, output.confusion_csv)
