"""Costs of jobs, on benchmark files written with a known start and known seconds an image."""

import copy
import math
import re
import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest

from curvelens import store, workload
from curvelens.config import Experiment, load
from curvelens.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
START, PIXELS = 8.0, 3 * 32 * 32
LEFT_OUT = dict.fromkeys(["spectra", "attacks", "path"])
CONFIG = {
    "datasets": {"pictures": {"source": "packaged_photographs", "parameters": {"size": 32}}},
    "models": {"net": {"dataset": "pictures", "architecture": "mlp"}},
    "experiments": {
        "one": {
            "model": "net",
            **LEFT_OUT,
            "explanations": {
                "images": 5, "shards": 1, "trust": None,
                "methods": {"smoothgrad": {"samples": 30}, "integrated_gradients": {"steps": 20}},
            },
            "distances": {"images": 90, "shards": 4},
            "fidelity": {
                "validation_images": 4, "images": 10, "shards": 2, "radii": [0.5], "laws": ["ball"],
                "scalars": ["predicted_logit"], "sigma_factors": [1.0, 2.0], "betas": [1, 2, 3],
                "swish_betas": [], "calls": 100, "samples": 30,
            },
        }
    },
}  # fmt: skip
SECONDS = {"explain/one": 0.5, "compute_distances/one": 2.0, "measure_fidelity/one/test": 3.0}
SECONDS["measure_fidelity/one/validation"] = 7.0


def changed(**sections):
    config = copy.deepcopy(CONFIG)
    for section, settings in sections.items():
        config["experiments"]["one"][section].update(settings)
    return load(config).model_dump(mode="json")


def write_benchmark(folder, name, seconds, peak="500.0"):
    path = folder / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}\t0:00:01\t{peak}\t{seconds}\n")


def finished(folder, config, seconds):
    """Write the benchmark files of a run whose jobs take START and then ``seconds`` for each image."""
    store.save_json(folder / "report/run.json", {"config": config})
    store.save_json(folder / "data/pictures/dataset.json", {"image_shape": [3, 32, 32]})
    write_benchmark(folder, "evaluate_model/net", START)
    write_benchmark(folder, "draw_chart/one/overview", 1.0)
    for stage in workload.stages(config, {"one": PIXELS}):
        for shard in range(stage.shards):
            images = len(range(shard, stage.images, stage.shards))
            write_benchmark(folder, f"{stage.name}/{shard}", START + images * seconds[stage.name])
    return folder


@pytest.fixture
def results(tmp_path):
    return finished(tmp_path / "results", changed(), SECONDS)


def planned(config):
    return {stage.name: stage for stage in workload.stages(config, {"one": PIXELS})}


def test_start_and_slope_are_found(results):
    measured = workload.measure(results)
    assert measured.start == START
    assert {name: rate.seconds for name, rate in measured.rates.items()} == pytest.approx(SECONDS)
    assert measured.rates["compute_distances/one"].images == 90
    assert measured.rates["compute_distances/one"].jobs == 4
    assert measured.rates["compute_distances/one"].peak_mib == 500


def test_what_could_not_be_measured_is_left_out(results):
    write_benchmark(results, "compute_distances/one/0", "NA", "NA")
    write_benchmark(results, "explain/one/0", 33.0, "NA")
    rates = workload.measure(results).rates
    assert math.isnan(rates["explain/one"].peak_mib)
    assert rates["compute_distances/one"].jobs == 3


@pytest.mark.parametrize(
    ("section", "settings", "name", "factor"),
    [
        ("distances", {"images": 900}, "compute_distances/one", 1),
        ("explanations", {"methods": {"smoothgrad": {"samples": 100}}}, "explain/one", 2),
        ("explanations", {"methods": {"gradient": {}}}, "explain/one", 1 / 50),
        # One scalar: 1 radius x 2 sigmas x 100 calls + 3 betas x 3072 + a third of 30 samples = 9426.
        ("fidelity", {"calls": 200}, "measure_fidelity/one/validation", 9626 / 9426),
        ("fidelity", {"betas": [1, 2, 3, 4]}, "measure_fidelity/one/validation", 12498 / 9426),
        ("fidelity", {"samples": 300}, "measure_fidelity/one/validation", 9516 / 9426),
        # With the chosen parameters: 100 calls + 2 of the betas x 3072 + 10; more betas change nothing.
        ("fidelity", {"calls": 200}, "measure_fidelity/one/test", 6354 / 6254),
        ("fidelity", {"betas": [1, 2, 3, 4]}, "measure_fidelity/one/test", 1),
    ],
)
def test_an_image_costs_in_proportion_to_its_calls(results, section, settings, name, factor):
    stage = planned(changed(**{section: settings}))[name]
    seconds = workload.seconds_per_image(workload.measure(results), stage)
    assert seconds == pytest.approx(factor * SECONDS[name])


def test_no_setting_that_adds_work_makes_an_image_cheaper():
    complete = Experiment.model_validate(
        {
            "model": "net",
            "trust": {},
            "superpixels": {"interaction_calls": 400},
            "judging": {},
            "sparsity": {},
        }
    ).model_dump(mode="json")
    more = {"calls", "samples", "betas", "sigma_squared", "smoothing_radii", "interaction_calls", "radii"}
    for section in workload.STAGES.values():
        for split in ("validation", "test"):
            least = workload.work(section, complete[section], split, PIXELS)
            assert least > 0
            for key in more & complete[section].keys():
                grown = {**complete[section], key: complete[section][key] * 2}
                assert workload.work(section, grown, split, PIXELS) >= least, (section, split, key)


@pytest.mark.parametrize(
    ("images", "seconds", "minutes", "shards"),
    [(100, 2.0, 1.0, 4), (100, 2.0, 10.0, 1), (100, 100.0, 1.0, 100), (3, 1e-3, 1.0, 1), (7, 1.0, 0.0, 7)],
)
def test_shards_make_jobs_as_long_as_asked(images, seconds, minutes, shards):
    stage = workload.Stage("explain/one", "one", "explanations", images, 1, 1.0)
    found = workload.shards_for(stage, START, seconds, minutes)
    assert found == shards
    job = START + images / found * seconds
    assert job <= max(60 * minutes, START + seconds) + 1e-9


def test_every_stage_that_is_divided_is_known():
    divided = {
        name
        for name, field in Experiment.model_fields.items()
        for section in getattr(field.annotation, "__args__", ())
        if "shards" in getattr(section, "model_fields", {})
    }
    assert set(workload.STAGES.values()) == divided
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for rule in workload.STAGES:
        assert re.search(rf"results/benchmarks/{rule}/\S*{{{{?shard}}}}?\.tsv", text), rule


def test_the_command_proposes_shards(results, capsys, tmp_path):
    assert workload.main([str(results), "--minutes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A job takes 8 s before its first image."
    distances = next(line.split() for line in lines if line.startswith("compute_distances/one"))
    assert distances == ["compute_distances/one", "90", "2", "4", "0.88", "4"]
    assert workload.main([str(results), "--configfile", str(ROOT / "config/test.yaml")]) == 0
    assert "not measured" in capsys.readouterr().out
    assert workload.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"curvelens: {tmp_path}: holds no finished run")
    assert workload.main([str(results), "--configfile", str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_measured_jobs_is_refused(results):
    shutil.rmtree(results / "benchmarks")
    with pytest.raises(DataError, match="no job with a network was measured"):
        workload.measure(results)


# ---------------------------------------------------------------- the pages


@pytest.fixture(scope="module")
def costs():
    spec = spec_from_file_location("costs", ROOT / "docs/costs.py")
    module = module_from_spec(spec)
    sys.modules["costs"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["costs"]


def test_the_estimate_takes_the_run_that_is_most_alike(costs, results, tmp_path):
    slow = finished(tmp_path / "slow", changed(distances={"images": 10}), {**SECONDS, "explain/one": 50.0})
    runs = [
        costs.Run(label, folder, workload.measure(folder)) for label, folder in (("a", results), ("b", slow))
    ]
    other = changed(explanations={"images": 50, "methods": {"smoothgrad": {"samples": 100}}})
    other["models"]["net"]["parameters"] = {"hidden": [9]}
    speeds = costs.Speeds(lambda architecture, parameters, *size: 2.0 if parameters["hidden"] == [9] else 1.0)
    found = {one.stage.name: one for one in costs.estimate(other, runs, speeds)}
    # Another network, whose gradient takes twice as long, and twice the calls: 50 x 0.5 x 2 x 2 s.
    explained = found["explain/one"]
    assert explained.seconds == pytest.approx(START + 50 * 0.5 * 2 * 2)
    assert explained.basis == "calls and network"
    same = {one.stage.name: one for one in costs.estimate(changed(distances={"images": 9000}), runs, speeds)}
    assert same["compute_distances/one"].seconds == pytest.approx(4 * START + 9000 * 2.0)
    assert same["compute_distances/one"].basis == "measured"
    rows = costs.planned(list(same.values()))
    assert rows[0][2] == "measured"
    twice = changed(distances={"c1": 5.0}, fidelity={"calls": 200})
    bases = {one.stage.name: one.basis for one in costs.estimate(twice, runs, speeds)}
    assert bases["measure_fidelity/one/validation"] == "calls"
    assert rows[-1][:4] == ["all", "", "", 1 + 4 + 2 + 2]


def test_fifty_thousand_pictures_are_multiples_of_one(costs, results):
    tables = results / "tables/one"
    tables.mkdir(parents=True)
    explained = [{"image_id": str(n), "method": "smoothgrad", "calls": 30, "seconds": 0.36} for n in range(5)]
    pd.DataFrame(explained).to_parquet(tables / "explanations.parquet")
    pd.DataFrame({"calls": [12] * 90}).to_parquet(tables / "distances.parquet")
    shard = results / "explanations/one/smoothgrad/0.npz"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"x" * 5000)
    run = costs.Run("pictures", results, workload.measure(results))
    smoothgrad, distances = costs.per_method(run)
    # 18,000 s in jobs of 592 s: 31 jobs with a start each.
    assert smoothgrad == ["smoothgrad", "30", "0.36", "31", "5.1", "0.051", "50 MB"]
    assert distances[:5] == ["CASO against CAFO", "12", "2", "169", "28"]
    of_images = 5 * 0.5 + 90 * 2.0 + 10 * 3.0 + 4 * 7.0
    assert costs.totals(run)[:3] == ["pictures", 11, costs.hours(10 * START + 1 + of_images)]


def test_the_pages_have_every_marker_and_a_table_in_each():
    pages = {"docs/clusters.md": ("measured", "paper", "pictures"), "config/README.md": ("rates",)}
    for page, names in pages.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for name in names:
            part = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
            assert part, (page, name)
            assert part[1].count("\n| ") >= 3, (page, name)
