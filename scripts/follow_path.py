"""Follow the straight path between two images of different classes."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import path

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = snakemake.params.settings
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = store.load_image_set(snakemake.input.images)
classes, ids = (tuple(settings[key]) if settings[key] else None for key in ("classes", "ends"))
names = store.load_json(snakemake.input.info[0])["class_names"]
start, end = path.choose_pair(model, images, classes, device, ids=ids, class_names=names)
noise = {"sigma": settings["noise"], "samples": settings["samples"]}
table, arrays = path.path(
    model,
    images,
    start,
    end,
    steps=settings["steps"],
    parameters={"smoothgrad": noise, "vargrad": noise},
    seed=snakemake.params.seed,
    device=device,
)
tables.write(table, path.PATH, snakemake.output.table, snakemake.output.csv)
store.save_npz(snakemake.output.arrays, arrays)
