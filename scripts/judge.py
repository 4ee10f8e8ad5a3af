"""Judge the stored maps of one shard of images, and those of grids of images, by numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import judging, judging_again, judging_grids, selection
from curvelens.sections.judging import Judging
from curvelens.summaries.explanations import EXPLANATIONS
from curvelens.summaries.judging import CURVE_PARTS, JUDGEMENT_IMAGES

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = Judging.model_validate(snakemake.params.settings)
explained = snakemake.params.explanations
number, shards = int(snakemake.wildcards.shard), snakemake.params.shards
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
everything = store.load_image_set(snakemake.input.images)
chosen = selection.take(everything, settings.images)
judge = judging.Judge(
    model,
    settings,
    judging_again.Explainer(explained["methods"], explained["scalar"], snakemake.params.seed),
    judging.stored_maps(snakemake.input.maps, chosen.ids),
    judging.costs(tables.collect(snakemake.input.index, EXPLANATIONS)),
    judging.mask_classes(store.load_json(snakemake.input.dataset)),
    frozenset(chosen.ids[: settings.stability.images] if settings.stability else []),
    frozenset(chosen.ids[: settings.randomization.images] if settings.randomization else []),
)
table, curves = judge.images(chosen.shard(number, shards), device)
grids: dict[str, np.ndarray] = {}
names: list[str] = []
if settings.grids is not None:
    made = judging_grids.grids(model, everything, settings.grids, snakemake.params.seed, device)
    shard = made.shard(number, shards)
    rows, grids = judge.grids(shard, device)
    table, names = pd.concat([table, rows], ignore_index=True), shard.images.ids
store.save_explanations(snakemake.output.grids, grids, names)
tables.write(table, JUDGEMENT_IMAGES, snakemake.output.table)
tables.write(curves, CURVE_PARTS, snakemake.output.curves)
