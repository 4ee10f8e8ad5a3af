"""Another workflow takes this one as a module: its own folder of results, its own network and pictures."""

import shutil

import own_world
import pytest
import yaml
from workflow_runs import ROOT, output, run

from curvelens import store, tables
from curvelens.summaries.distances import DISTANCES

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
CONSUMER = """configfile: "settings.yaml"

module curvelens:
    snakefile: "{snakefile}"
    config: config["curvelens"]
    prefix: "explained"

use rule * from curvelens as curvelens_*

rule audit:
    default_target: True
    input: "explained/results/report/index.html"
    output: "audit.html"
    shell: "cp {{input}} {{output}}"
"""


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    """A folder with eight pictures of two digits, a small network's weights, and the consumer's Snakefile."""
    folder = tmp_path_factory.mktemp("consumer")
    settings = own_world.make(folder / "pictures", folder / "own.safetensors")
    (folder / "settings.yaml").write_text(yaml.safe_dump({"curvelens": settings}))
    (folder / "Snakefile").write_text(CONSUMER.format(snakefile=ROOT / "workflow/Snakefile"))
    return folder


def test_everything_lands_below_the_consumers_prefix(consumer):
    done = run(consumer, "--snakefile", "Snakefile")
    assert done.returncode == 0, output(done)
    table = tables.read(consumer / "explained/results/tables/own/distances.parquet", DISTANCES)
    assert list(table["status"]) == ["ok"] * 6
    assert store.load_json(consumer / "explained/results/models/own/model.json")["imported"]
    assert {path.name for path in consumer.iterdir() if not path.name.startswith(".")} == {
        "Snakefile", "settings.yaml", "pictures", "own.safetensors", "explained", "audit.html",
    }  # fmt: skip
    # The report found the times of the jobs, which are not among its inputs.
    assert "benchmark files, so" not in (consumer / "audit.html").read_text()


def test_a_second_run_of_the_consumer_schedules_nothing(consumer):
    done = run(consumer, "--snakefile", "Snakefile", "--dry-run")
    assert "Nothing to be done" in output(done)


def test_a_mistake_in_the_consumers_settings_is_told_on_one_line(consumer, tmp_path):
    shutil.copy(consumer / "Snakefile", tmp_path)
    settings = yaml.safe_load((consumer / "settings.yaml").read_text())
    settings["curvelens"]["experiments"]["own"]["distances"] = {"image": 6}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    done = run(tmp_path, "--snakefile", "Snakefile", "--dry-run")
    assert done.returncode != 0
    assert (
        "curvelens: config: unknown key 'experiments.own.distances.image'; did you mean 'images'?"
        in output(done)
    )
