"""The whole chain on real digits, what a second run does, and what mistakes cost."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from workflow_runs import ROOT, changed_config, import_all_schemas, output, scheduled, snakemake

from curvelens import manifest, store, tables

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
STAGES = ["explanations", "spectra", "distances", "fidelity", "attacks", "trust"]
PER_IMAGE = ["explanations", "spectra", "distances", "fidelity_images", "attacks_images", "trust_images"]


def checksums(folder):
    return {
        str(p.relative_to(folder)): store.sha256(p)
        for p in sorted((folder / "results").rglob("*"))
        if p.is_file()
    }


def test_every_stage_leaves_a_valid_table(finished):
    import_all_schemas()
    folder = finished / "results/tables/digits"
    for name in {*STAGES, *PER_IMAGE}:
        table = tables.read(folder / f"{name}.parquet", tables.SCHEMAS[name])
        assert len(table)
        assert (folder / f"{name}.csv").is_file()
        if name in PER_IMAGE:
            assert (table["status"] == "ok").all(), table["error"].tolist()


def test_explanations_are_stored_per_image_with_their_index(finished):
    folder = finished / "results/explanations/digits"
    for method in ("gradient", "smoothgrad", "vargrad", "smoothhess"):
        arrays, ids = store.load_explanations(folder / method / "0.npz")
        index = pd.read_parquet(folder / method / "0.parquet")
        assert arrays["attribution"].shape == (12, 1, 8, 8)
        assert arrays["attribution"].dtype == np.float32
        assert np.isfinite(arrays["attribution"]).all()
        assert sorted(ids) == sorted(index["image_id"])
        assert index["trust_radius"].notna().all() == (method != "vargrad")
    shared = pd.read_parquet(finished / "results/tables/digits/shared_calls.parquet").set_index("method")
    assert shared.loc["all", "calls"] == 12 * (1 + 32)
    assert shared.loc["all", "calls_alone"] == 12 * (1 + 3 * 32)
    assert (store.load_explanations(folder / "vargrad/0.npz")[0]["attribution"] >= 0).all()


def test_every_job_left_a_log_and_a_benchmark(finished):
    logs = {
        p.relative_to(finished / "results/logs").with_suffix("")
        for p in (finished / "results/logs").rglob("*.log")
    }
    times = {
        p.relative_to(finished / "results/benchmarks").with_suffix("")
        for p in (finished / "results/benchmarks").rglob("*.tsv")
    }
    assert logs == times
    assert len(logs) > 15


def test_a_clean_run_with_other_shards_and_cores_gives_the_same_content(finished, tmp_path):
    """Training included: bit by bit the same on one machine, so that no rounding has to hide anything."""
    stages = ["explanations", "spectra", "distances", "fidelity", "attacks", "trust"]

    def more_shards(experiment, raw):
        for stage in stages:
            experiment[stage]["shards"] = 3

    done = snakemake(tmp_path, "--cores", "1", *stages, config=changed_config(tmp_path, more_shards))
    assert done.returncode == 0, output(done)
    one, three = (folder / "results" for folder in (finished, tmp_path))
    made = sorted(path.relative_to(three) for path in three.glob("tables/digits/*.parquet"))
    assert len(made) >= 12
    for name in made:
        assert manifest.content_sha256(one / name) == manifest.content_sha256(three / name), name
        if "seconds" not in pd.read_parquet(one / name):
            assert store.sha256(one / name) == store.sha256(three / name), name
    for name in ("models/digits_relu/weights.safetensors", "data/digits/test.npz"):
        assert store.sha256(one / name) == store.sha256(three / name)


def test_a_corrupt_file_is_named_and_nothing_else_is_lost(copied):
    maps = copied / "results/explanations/digits/gradient/0.npz"
    maps.write_bytes(maps.read_bytes()[:1000])
    before = checksums(copied)
    done = snakemake(copied, "figures")
    assert done.returncode != 0
    told = re.search(r"curvelens: error: \S*gradient/0\.npz: .*", output(done))
    assert told, output(done)
    assert "run again" in told[0]
    after = checksums(copied)
    changed = {name for name, digest in before.items() if after.get(name) != digest}
    lost = {name for name in changed if "/logs/" not in name}
    # Snakemake removes what the failed job was about to make again: the figure drawn from the damaged file.
    assert lost
    assert all(name.startswith("results/figures/digits/explanations.") for name in lost)


def test_weights_that_do_not_fit_are_told(copied):
    weights = copied / "results/models/digits_relu/weights.safetensors"
    tensors = safetensors.numpy.load_file(weights)
    safetensors.numpy.save_file(tensors | {"linear1.bias": np.zeros(63, np.float32)}, weights)
    done = snakemake(copied, "models")
    assert done.returncode != 0
    assert re.search(r"curvelens: error: .*weights\.safetensors: linear1\.bias is \[63\].*", output(done))


def test_weights_from_a_file_replace_training(finished, tmp_path):
    """The network that was trained, taken as a file: the same network, no history, the same explanations."""
    given = tmp_path / "given.safetensors"
    shutil.copy(finished / "results/models/digits_relu/weights.safetensors", given)

    def from_file(experiment, raw):
        raw["models"]["digits_relu"] |= {"weights": str(given), "weights_sha256": store.sha256(given)}

    config = changed_config(tmp_path, from_file)
    done = snakemake(tmp_path, "results/models/digits_relu/model.json", config=config)
    assert done.returncode == 0, output(done)
    ours, theirs = (
        store.load_json(folder / "results/models/digits_relu/model.json") for folder in (tmp_path, finished)
    )
    assert ours["imported"] == str(given)
    assert "training" not in ours
    assert ours["test_accuracy"] == theirs["test_accuracy"]
    assert {"train_model", "import_model"} <= scheduled(tmp_path, "--forceall", config=config)
    given.write_bytes(given.read_bytes()[:-4])
    done = snakemake(tmp_path, "results/models/digits_relu/model.json", config=config)
    assert re.search(r"curvelens: error: .*given\.safetensors: SHA-256 is .* not .*", output(done))


@pytest.mark.parametrize("profile", ["default", "slurm", "kubernetes"])
def test_every_profile_passes_a_dry_run(tmp_path, profile):
    done = snakemake(tmp_path, "--dry-run", "--workflow-profile", str(ROOT / "profiles" / profile))
    assert done.returncode == 0, output(done)
    assert "render_report" in output(done)


@pytest.mark.parametrize("config", ["config.yaml", "paper.yaml"])
def test_shipped_configurations_make_a_plan(tmp_path, config):
    assert "render_report" in scheduled(tmp_path, config=ROOT / "config" / config)


def test_the_example_with_given_weights_makes_a_plan(tmp_path):
    """The paths are given on the command line, as the file's first lines say."""
    for name in ("weights.th", "pictures.tar"):
        (tmp_path / name).touch()
    paths = [
        f"datasets={{cifar10: {{data_dir: {tmp_path}}}}}",
        f"models={{cifar10_resnet20: {{weights: {tmp_path}/weights.th}}}}",
    ]
    planned = scheduled(tmp_path, "--config", *paths, config=ROOT / "config/cifar10_small.yaml")
    assert {"import_model", "evaluate_model", "measure_attacks", "render_report"} <= planned
    assert "train_model" not in planned


@pytest.mark.parametrize("stage", ["data", "models", *STAGES, "figures", "report"])
def test_a_stage_can_be_asked_for_by_name(tmp_path, stage):
    planned = scheduled(tmp_path, stage)
    assert stage in planned
    assert ("render_report" in planned) == (stage == "report")


@pytest.mark.parametrize(("edit", "told"), [
    (lambda experiment, raw: raw.update(sede=1), r"unknown key 'sede'.*'seed'"),
    (lambda experiment, raw: experiment["fidelity"].update(radii=[]), r"digits\.fidelity\.radii"),
    (lambda experiment, raw: raw["datasets"]["digits"].update(source="mnits"), r"unknown data set 'mnits'"),
])  # fmt: skip
def test_a_mistake_in_the_config_stops_before_any_job(finished, tmp_path, edit, told):
    before = checksums(finished)
    done = snakemake(finished, config=changed_config(tmp_path, edit))
    assert done.returncode != 0
    lines = [line for line in output(done).splitlines() if line.startswith("curvelens: ")]
    assert len(lines) == 1
    assert re.search(told, lines[0])
    assert "Traceback" not in output(done)
    assert checksums(finished) == before


def test_without_a_configfile_the_embedded_default_is_used(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    done = snakemake(tmp_path, "--dry-run", "data", config=None)
    assert done.returncode == 0, output(done)
    assert "results/data/mnist/dataset.json" in output(done)


def test_the_manifest_describes_what_the_run_made(finished):
    made = store.load_json(finished / "results/manifest.json")
    assert manifest.verify(finished / "results/manifest.json") == []
    described = {entry["@id"] for entry in made["files"]}
    assert {
        "report/index.html",
        "data/digits/test.npz",
        "models/digits_relu/weights.safetensors",
    } <= described
    tables_made = {path.name for path in (finished / "results/tables/digits").glob("*.parquet")}
    assert tables_made <= {Path(name).name for name in described}
    gallery = {f"report/gallery/{path.name}" for path in (finished / "results/report/gallery").glob("*.html")}
    assert {"fidelity/digits/choices.parquet", "tables/digits/fidelity.csv", *gallery} <= described
    crate = store.load_json(finished / "results/ro-crate-metadata.json")["@graph"]
    assert {entity["@id"] for entity in crate if entity["@type"] == "File"} == {"manifest.json", *described}
    assert made["datasets"]["digits"]["sha256"]
    assert made["numerics"]
    assert made["config"]["experiments"]["digits"]["model"] == "digits_relu"
    assert made["lock"]["sha256"] == store.sha256(ROOT / "locks/workflow.txt")
    assert {"train_model/digits_relu", "render_report"} <= {job["name"] for job in made["jobs"]}
