"""Put the tables of both networks below each other, and say how well each predicts."""

from pathlib import Path
from typing import TYPE_CHECKING

from curvelens import jobs, store, tables
from curvelens.summaries import spirometry

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
parts = [Path(path) for path in snakemake.input.parts]
found = {}
for name in ("predictions", "explanations", "intervals", "interactions", "samples"):
    schema = tables.SCHEMAS[f"spirometry_{name}"]
    of_name = [path for path in parts if path.stem == name]
    # Both networks explain the same curves: their samples are written once.
    found[name] = tables.collect(of_name[:1] if name == "samples" else of_name, schema)
    tables.write(found[name], schema, snakemake.output[name], snakemake.output[f"{name}_csv"])
models = {Path(path).parent.name: store.load_json(path) for path in snakemake.input.info}
curves = tables.read(snakemake.input.curves, spirometry.SPIROMETRY_CURVES)
networks = spirometry.networks(found["predictions"], curves, models)
tables.write(
    networks, spirometry.SPIROMETRY_NETWORKS, snakemake.output.networks, snakemake.output.networks_csv
)
