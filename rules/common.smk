"""Helpers that the rule files share: the checked configuration, the code a job depends on, shards and tables."""

import os
import sys
from pathlib import Path

source = Path(str(workflow.current_basedir)).resolve().parent / "src"
if source.is_dir():
    # The library that came with this workflow, not another one that happens to be installed; jobs inherit it.
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)

from curvelens import datasets, methods, models
from curvelens.config import load
from curvelens.errors import ConfigError
from curvelens.provenance import code_version

try:
    settings = load(config)
except ConfigError as error:
    # One line and a non-zero exit; a WorkflowError would wrap it in a traceback.
    sys.exit(f"curvelens: {error}")


wildcard_constraints:
    dataset="|".join(settings.datasets),
    model="|".join(settings.models),
    experiment="|".join(settings.experiments),
    method="[a-z0-9_]+",
    split="validation|test",
    shard=r"\d+",


def experiments_with(stage):
    """Names of the experiments that run `stage`."""
    return [name for name, experiment in settings.experiments.items() if getattr(experiment, stage) is not None]


def section(stage):
    """The stage's settings, as a function of wildcards: a job reruns when its own stage's settings change."""
    return lambda wildcards: getattr(settings.experiments[wildcards.experiment], stage).model_dump(mode="json", exclude={"shards"})


def shards(stage):
    """All shard numbers of a stage, as a function of wildcards."""
    return lambda wildcards: [str(i) for i in range(getattr(settings.experiments[wildcards.experiment], stage).shards)]


def shard_count(stage):
    """How many shards a stage has, as a function of wildcards."""
    return lambda wildcards: getattr(settings.experiments[wildcards.experiment], stage).shards
