"""Measure one network on every split, and describe it."""

import math
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, training

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings, data = snakemake.params.settings, store.load_json(snakemake.input.info)
architecture = models.described(settings, data)
model = models.restore(snakemake.input.weights, **architecture)
model = model.to(devices.device(snakemake.params.device, snakemake.resources.gpu))
quality = {
    # JSON has no NaN: a split without labelled images has no accuracy.
    f"{name}_{measure}": None if math.isnan(value) else value
    for name in ("train", "validation", "test")
    for measure, value in training.evaluate(model, store.load_image_set(snakemake.input[name]))
    ._asdict()
    .items()
}
origin = (
    {"training": settings["training"]}
    if snakemake.params.trained
    else {"imported": settings["weights"] or next(iter(settings["weights_urls"]), settings["architecture"])}
)
meta = {
    "name": snakemake.wildcards.model,
    "dataset": settings["dataset"],
    "class_names": data["class_names"],
    **origin,
    "seed": snakemake.params.seed,
    **quality,
}
models.save_description(model, snakemake.output[0], **architecture, meta=meta)
