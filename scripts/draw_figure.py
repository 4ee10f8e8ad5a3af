"""Draw one figure from its tables, for a page and for a telephone, with its texts."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import figures, jobs

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
inputs = {
    name: [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]
    for name, paths in snakemake.input.items()
}
figures.draw(snakemake.wildcards.figure, inputs, Path(snakemake.output.page))
