"""A report rendered once from a made-up run, for the tests that read it and the test that opens it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import competing_world
import evaluation_world
import interactions_world
import judgement_world
import maps_world
import numpy as np
import pandas as pd
import path_world
import report_world as world
import sparsity_world
import spirometry_world
import superpixels_world
import theorems_world

from curvelens import figures, reporting
from curvelens.figures.film import write_film
from curvelens.summaries import distances, sparsity, trust
from curvelens.summaries.complexity import rates
from curvelens.summaries.explanations import share

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "report" / "index.py"


def contents(folder: Path) -> dict:
    """Write tables, figures, models, data set and benchmarks; return the report's parameters."""
    spectra = world.spectra(6, failed=1)
    tables = {
        "spectra": spectra,
        "eigenvalues": world.eigenvalues(spectra),
        "spectra_sweep": world.spectra_sweep(),
        "distances": world.distances(60, failed=2),
        "distances_summary": distances.summarise(world.distances(60, failed=2)),
        "fidelity": world.fidelity(),
        "attacks": world.attacks(),
        "attacks_images": world.attacks_images(4),
        "attacks_paired": world.attacks_paired(),
        "trust_images": world.trust_images(8),
        "trust": trust.summarise(world.trust_images(8)),
        "path": path_world.table(),
        "complexity": world.complexity(),
        "complexity_rates": rates(world.complexity()),
        **interactions_world.tables(),
        **spirometry_world.tables(),
        **theorems_world.tables(),
        **maps_world.tables(),
        **evaluation_world.made(["cat", world.HOSTILE, "größer"]),
    }
    index = world.index(6)
    tables |= {"explanations": index, "shared_calls": share(index)}
    paths: dict = {}
    for name, frame in tables.items():
        paths[name] = folder / "tables" / f"{name}.parquet"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(paths[name])
    history = folder / "models" / "relu" / "history.parquet"
    history.parent.mkdir(parents=True)
    world.history().to_parquet(history)
    model = {
        "architecture": "mlp",
        "parameters": {"hidden": [500, 300], "activation": "relu"},
        "weights": 545810,
        "class_names": [world.HOSTILE, *"123456789"],
        "train_accuracy": 1.0,
        "validation_accuracy": 0.95,
        "test_accuracy": 0.961,
    }
    data = {"source": f"digits of {world.HOSTILE}", "licence": "CC0", "sizes": {"train": 3500, "test": 750}}
    data["class_names"] = model["class_names"]
    benchmark = folder / "benchmarks" / "compute_spectra" / "relu" / "0.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\tcpu_time\n61.5\t0:01:01\t812.4\t-\n")
    frames = folder / "films" / "path.npz"
    frames.parent.mkdir()
    np.savez(frames, **path_world.arrays())
    vectors = world.eigenvectors(folder / "spectra", spectra)
    inputs = {
        **paths,
        "film": frames,
        "eigenvectors": vectors,
        **world.explanations(folder / "maps"),
        "history": history,
    }
    regions = superpixels_world.write(folder / "superpixels", inputs["images"][0])
    inputs |= regions
    paths["superpixels"] = regions["superpixels"]
    inputs["distance_examples"] = maps_world.examples(
        folder / "distances", tables["distances"], inputs["images"][0]
    )
    sparse = sparsity_world.write(folder / "sparsity", inputs["images"][0])
    inputs |= sparse
    paths["sparsity"] = sparse["sparsity"]
    paths["sparsity_summary"] = folder / "sparsity" / "sparsity_summary.parquet"
    sparsity.summarise(pd.read_parquet(sparse["sparsity"])).to_parquet(paths["sparsity_summary"])
    judged = judgement_world.write(folder / "judging")
    inputs |= judged
    paths |= {name: path for name, path in judged.items() if name != "grid_maps"}
    two = competing_world.write(folder / "competing")
    inputs |= two
    paths["competing"] = two["competing"]
    models = world.write_json(folder / "models" / "relu" / "model.json", model)
    inputs["models"] = [models]
    drawn = {}
    for spec in figures.specs():
        output = folder / "figures" / f"{spec.name}{spec.suffix}"
        drawn[spec.name] = str(figures.draw(spec.name, inputs, output)[2])
    films = {"path": {**film(folder), "caption": "From one digit to another.", "alt": "A film of a path."}}
    studies = {
        study: {
            "figures": {name: drawn.pop(name) for name in names if name in drawn},
            "tables": {name: str(paths.pop(name)) for name in names if name in paths},
        }
        for study, names in {
            "calls": ("complexity", "complexity_rates"),
            "plane": (*interactions_world.tables(), "smoothed_surface"),
            "lungs": ("spirometry", *spirometry_world.tables()),
            "proved": tuple(theorems_world.tables()),
        }.items()
    }
    shown = {"figures": drawn, "tables": {name: str(path) for name, path in paths.items()}, "films": films}
    return {
        "title": f"How far? {world.HOSTILE}",
        "experiments": {"digits": shown},
        "studies": studies,
        "models": {"relu": str(models)},
        "datasets": {"digits": str(world.write_json(folder / "data" / "dataset.json", data))},
        "benchmarks": [str(benchmark), str(folder / "benchmarks" / "gone.tsv")],
        "config": {
            "seed": 7,
            "models": {"relu": {"dataset": "digits"}},
            "experiments": {"digits": {"model": "relu"}},
            "studies": {
                "calls": {"kind": "complexity"},
                "plane": {"kind": "interactions"},
                "lungs": {"kind": "spirometry"},
                "proved": {"kind": "theorems"},
            },
        },
    }


def film(folder: Path) -> dict[str, str]:
    """Write a film of one second and its poster."""
    poster = folder / "films" / "path.png"
    video = write_film(folder / "films" / "path.mp4", path_world.content(5), seconds=1.0, poster=poster)
    return {"video": str(video), "poster": str(poster)}


@functools.cache
def rendered() -> Path:
    """Render the report once a process and return the HTML file."""
    folder = Path(tempfile.mkdtemp(prefix="curvelens-report-"))
    output = folder / "index.html"
    parameters = {"contents": contents(folder)}
    return reporting.render(NOTEBOOK, parameters, output, folder / "work", folder / "report.log")
