"""Explain two classes on each of some images, and compare the maps."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.errors import ConfigError
from curvelens.experiments.competing import Described, competing
from curvelens.sections.competing import Competing
from curvelens.summaries.competing import COMPETING

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = Competing.model_validate(snakemake.params.settings)
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
own, other = (store.load_json(path) for path in (snakemake.input.info, snakemake.input.scenes_info))
for key in ("class_names", "image_shape"):
    if own[key] != other[key]:
        raise ConfigError(
            f"competing.scene_dataset: its {key} {str(other[key])[:60]} are not {str(own[key])[:60]}, those "
            "of the network's data set; prepare both alike"
        )
table, arrays, ids = competing(
    model,
    store.load_image_set(snakemake.input.images),
    store.load_image_set(snakemake.input.scenes),
    settings,
    Described(own["class_names"], {**own["origins"], **other["origins"]}, own["source"]),
    seed=snakemake.params.seed,
    device=device,
)
tables.write(table, COMPETING, snakemake.output.table, snakemake.output.csv)
store.save_explanations(snakemake.output.arrays, arrays, ids)
