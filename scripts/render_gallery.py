"""Write the gallery: an index of images and a page for each."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs
from curvelens.reporting import gallery

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
experiments: dict[str, dict[str, list[Path]]] = defaultdict(dict)
for name, files in snakemake.input.items():
    experiment, split, kind = name.rpartition("__")
    if split:
        paths = [files] if isinstance(files, str) else files
        experiments[experiment][kind] = [Path(path) for path in paths]
gallery.write(
    snakemake.params.title,
    experiments,
    dict(zip(("style", "gallery", "script"), map(Path, snakemake.params.templates), strict=True)),
    Path(snakemake.output.index).parent,
    snakemake.params.limit,
)
