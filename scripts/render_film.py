"""Render the film of a path, its poster, and its texts."""

from typing import TYPE_CHECKING

import pandas as pd

from curvelens import jobs, store
from curvelens.figures import film, film_texts

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

jobs.start(snakemake.log[0], snakemake.threads)
table = pd.read_parquet(snakemake.input.table)
arrays = store.load_npz(snakemake.input.arrays)
names = store.load_json(snakemake.input.dataset[0])["class_names"]
shown = film_texts.contents(table, arrays, names)
frame = film_texts.poster_frame(table)
film.write_film(snakemake.output.video, shown, poster=snakemake.output.poster, poster_frame=frame)
store.save_json(snakemake.output.texts, film_texts.texts(table, names))
