"""Follow CAFO and CASO along λ₁ on the images of one shard, and choose λ₁ by sparsity."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import devices, jobs, models, store, tables
from curvelens.experiments import selection, sparsity
from curvelens.sections.sparsity import Sparsity
from curvelens.summaries.sparsity import SPARSITY

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
settings = Sparsity.model_validate(snakemake.params.settings)
device = devices.device(snakemake.params.device, snakemake.resources.gpu)
model = models.load(Path(snakemake.input.network[0]).parent, device)
images = selection.shard(
    snakemake.input.images, settings.images, int(snakemake.wildcards.shard), snakemake.params.shards
)
table, arrays = sparsity.sparsity_paths(model, images, settings, seed=snakemake.params.seed, device=device)
tables.write(table, SPARSITY, snakemake.output.table)
store.save_explanations(snakemake.output.arrays, arrays, images.ids)
