"""Networks of one's own through the workflow: from files to tables, and what an edit of their code reruns."""

import re
from pathlib import Path

import pytest
import yaml
from own_networks_world import MODULE, PARTS, make
from workflow_runs import import_all_schemas, output, scheduled, snakemake

from curvelens import store, tables

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
OUT = dict.fromkeys(["explanations", "spectra", "distances", "fidelity", "attacks", "path"])
METHODS = {
    "gradient": {},
    "smoothgrad": {"sigma": 0.15, "samples": 8},
    "smoothhess": {"sigma": 0.15, "samples": 8},
    "caso": {},
}
STAGES = {
    "explanations": {"images": 3, "shards": 1, "methods": METHODS},
    "distances": {"images": 6, "examples": 0, "compared_images": 0},
}
SPECTRA = {"images": 2, "compared_images": 1, "betas": [30]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder in which three networks went as far as their tables."""
    folder = tmp_path_factory.mktemp("own")
    models = make(folder)
    experiments = {name: {"model": name, **OUT, **STAGES} for name in models}
    experiments["program"]["spectra"] = SPECTRA
    raw = {
        "datasets": {"digits": {"source": "sklearn_digits"}},
        "models": models,
        "experiments": experiments,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    done = run(folder, "explanations", "spectra", "distances")
    assert done.returncode == 0, output(done)
    return folder


def run(folder, *arguments):
    return snakemake(folder, *arguments, config=folder / "config.yaml")


def test_each_network_is_recognised(world):
    """All are right mostly; a wrong order of classes or range of pixels would show."""
    files = {"library": "library.safetensors", "program": "program.pt2", "code": "code.pt"}
    for name, imported in files.items():
        described = store.load_json(world / f"results/models/{name}/model.json")
        assert described["test_accuracy"] > 0.8, name
        assert Path(described["imported"]).name == imported
        assert described["parameters"].get("class_names") is None or name == "code"


def test_every_stage_has_a_row_for_every_image(world):
    import_all_schemas()
    written = sorted((world / "results/tables").glob("*/*.parquet"))
    assert {path.parent.name for path in written} == {"library", "program", "code"}
    for path in written:
        table = tables.read(path, tables.SCHEMAS[path.stem])
        assert len(table), path
        if "status" in table:
            assert (table["status"] == "ok").all(), (path, table["error"].tolist())
    spectra = tables.read(world / "results/tables/program/spectra.parquet", tables.SCHEMAS["spectra"])
    # What an exported ReLU network is known to be, and the distance to the border of its linear region.
    assert set(spectra["activation"]) == {"relu"}
    assert (spectra["region_radius"] > 0).all()


def test_an_edit_of_own_code_reruns_what_depends_on_it(world):
    """Also one of a module that the named one imports; a comment reruns nothing, nor do other networks."""
    goals = ["explanations", "distances"]
    config = world / "config.yaml"
    assert scheduled(world, *goals, config=config) == set()
    try:
        (world / "code/own_digits.py").write_text(MODULE + "# A comment.\n")
        assert scheduled(world, *goals, config=config) == set()
        (world / "code/own_parts.py").write_text(PARTS.replace("nn.SiLU()", "nn.GELU()"))
        again = scheduled(world, *goals, config=config)
        assert {"import_model", "evaluate_model", "explain_code", "compute_distances"} <= again
        assert not {"explain_program", "explain_library", "prepare_dataset"} & again
    finally:
        (world / "code/own_digits.py").write_text(MODULE)
        (world / "code/own_parts.py").write_text(PARTS)


@pytest.mark.parametrize(
    ("model", "edit", "told"),
    [
        (
            "code",
            {"arguments": {"width": 33}},
            r"code\.pt: network\.1\.weight is \[32, 64\], the model needs",
        ),
        ("code", {"function": "own_digits:net"}, r"own_digits\.py has no function net; it has .*network"),
        (
            "library",
            {"model": "test_vit"},
            r"library\.safetensors: lacks .* and has unknown .*; give the weights",
        ),
        (
            "program",
            {"resize": 16},
            r"program\.pt2: the program was exported for images \[1, 8, 8\], and gets",
        ),
        ("program", {"outputs": [0, 1]}, r"names 2 outputs, and the data set has 10 classes"),
    ],
)
def test_what_does_not_fit_is_one_line(world, tmp_path, model, edit, told):
    raw = yaml.safe_load((world / "config.yaml").read_text())
    raw["models"][model].setdefault("parameters", {}).update(edit)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    done = snakemake(tmp_path, f"results/models/{model}/weights.safetensors", config=tmp_path / "config.yaml")
    assert done.returncode != 0
    lines = [line for line in output(done).splitlines() if line.startswith("curvelens: error: ")]
    assert len(set(lines)) == 1, output(done)
    assert re.search(told, lines[0]), lines
