"""Train a network of two features on a target whose interactions are known."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, synthetic, tables, training
from curvelens.schedules import Training

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, study, seed = snakemake.params.settings, snakemake.wildcards.study, snakemake.params.seed
schedule = Training.model_validate(settings["training"])
target = synthetic.TARGETS[settings["target"]]()
examples = synthetic.grid(target, settings["target"], settings["spacing"])
between = synthetic.between(target, settings["target"], settings["spacing"])
architecture = {
    "architecture": "regression_mlp",
    "parameters": {"hidden": settings["hidden"]},
    "classes": 1,
    "image_shape": [2],
}
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.build(**architecture, seed=seed, name=study).to(device)
history = training.train_regression(
    model,
    examples,
    between,
    schedule,
    seed=seed,
    name=study,
    checkpoint=snakemake.params.checkpoint,
    threads=snakemake.threads,
)
tables.write(history, training.REGRESSION_HISTORY, snakemake.output.history)
meta = {
    "name": study,
    "target": settings["target"],
    "updates": int(history["updates"].iloc[-1]),
    "mean_squared_error": training.mean_squared_error(model, examples),
    "between_mean_squared_error": training.mean_squared_error(model, between),
    "training": settings["training"],
    "seed": seed,
}
models.save(model, Path(snakemake.output.info).parent, **architecture, meta=meta)
Path(snakemake.params.checkpoint).unlink(missing_ok=True)
