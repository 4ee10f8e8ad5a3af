"""Train one network and measure it; an interrupted training goes on where it was."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import config, jobs, models, store, tables, training

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = snakemake.params.settings
wildcards, seed = snakemake.wildcards, snakemake.params.seed
data = store.load_json(snakemake.input.info)
architecture = {
    "architecture": settings["architecture"],
    "parameters": settings["parameters"],
    "classes": len(data["class_names"]),
    "image_shape": data["image_shape"],
}
device = jobs.device(snakemake.params.device)
model = models.build(**architecture, seed=seed, name=wildcards.model).to(device)
splits = {name: store.load_image_set(snakemake.input[name]) for name in ("train", "validation", "test")}
history = training.train(
    model,
    splits["train"],
    splits["validation"],
    config.Training.model_validate(settings["training"]),
    seed=seed,
    name=wildcards.model,
    checkpoint=snakemake.params.checkpoint,
    threads=snakemake.threads,
)
quality = {
    f"{name}_{measure}": value
    for name, images in splits.items()
    for measure, value in training.evaluate(model, images)._asdict().items()
}
tables.write(history, training.HISTORY, snakemake.output.history)
meta = {
    "name": wildcards.model,
    "dataset": settings["dataset"],
    "class_names": data["class_names"],
    "training": settings["training"],
    "seed": seed,
    **quality,
}
models.save(model, Path(snakemake.output.info).parent, **architecture, meta=meta)
Path(snakemake.params.checkpoint).unlink(missing_ok=True)
