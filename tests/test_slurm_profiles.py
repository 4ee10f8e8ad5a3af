"""The profiles for Slurm and the small configuration of `make test-slurm`, without a Slurm."""

import re

import yaml
from snakemake.utils import update_config
from workflow_runs import ROOT

from curvelens.config import Experiment, load

SMALL = ROOT / "tests/slurm/small.yaml"


def profile(name):
    return yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text())


def shape(settings):
    """What decides which rules run: data sets, networks, experiments' stages with their methods, studies."""
    stages = {
        name: {
            stage: sorted(getattr(getattr(experiment, stage), "methods", ()))
            for stage in Experiment.model_fields
            if getattr(experiment, stage) is not None
        }
        for name, experiment in settings.experiments.items()
    }
    studies = {name: study.kind for name, study in settings.studies.items()}
    return sorted(settings.datasets), sorted(settings.models), stages, studies


def test_the_small_configuration_has_the_shape_of_the_default():
    default = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    small = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    update_config(small, yaml.safe_load(SMALL.read_text()))
    assert shape(load(small)) == shape(load(default))


def test_the_gres_profile_differs_in_gpus_alone():
    plain, gres = profile("slurm"), profile("slurm-gres")
    assert gres["default-resources"].pop("gres") == "'gpu:1'"
    del gres["set-resources"]
    assert gres == plain


def test_the_gres_profile_spares_gpus_where_no_network_runs():
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    parts = re.split(r"^rule (\w+):\n", text, flags=re.MULTILINE)
    submitted = {
        name: body
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
        if "log:" in body and "localrule: True" not in body  # targets have no log
    }
    assert len(submitted) >= 30
    without_network = {name for name, body in submitted.items() if "gpu=gpu" not in body}
    assert set(profile("slurm-gres")["set-resources"]) == without_network
