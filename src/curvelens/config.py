"""The configuration: every key with its type, bounds, default and meaning, in one closed model.

Each stage has its keys in a module of :mod:`curvelens.sections`. The JSON schema is generated from here, so
that editors complete and check the same keys. Nothing in this module imports torch or pandas: a wrong key
must stop the workflow at once.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from curvelens.devices import CHOICE
from curvelens.errors import ConfigError
from curvelens.sections.attacks import Attacks
from curvelens.sections.common import Closed, Name
from curvelens.sections.competing import Competing
from curvelens.sections.distances import Distances
from curvelens.sections.evaluation import Evaluation
from curvelens.sections.explanations import Explanations
from curvelens.sections.fidelity import Fidelity
from curvelens.sections.judging import Judging
from curvelens.sections.left_out import without_left_out
from curvelens.sections.messages import one_line
from curvelens.sections.path import Path
from curvelens.sections.plain import check_plain
from curvelens.sections.sparsity import Sparsity
from curvelens.sections.spectra import Spectra
from curvelens.sections.superpixels import Superpixels
from curvelens.sections.trust import Trust
from curvelens.sections.world import Dataset, Model
from curvelens.studies import AnyStudy


class Experiment(Closed):
    """One question asked of one network: which stages run and on how many images."""

    model: str = Field(description="A key of `models`: the network that is explained.")
    smooth_model: str | None = Field(
        None, description="A key of `models`: the same architecture with SoftPlus, for the spectra."
    )
    explanations: Explanations | None = Field(default_factory=lambda: Explanations())
    spectra: Spectra | None = Field(default_factory=lambda: Spectra())
    distances: Distances | None = Field(default_factory=lambda: Distances())
    fidelity: Fidelity | None = Field(default_factory=lambda: Fidelity())
    attacks: Attacks | None = Field(default_factory=lambda: Attacks())
    trust: Trust | None = None
    path: Path | None = Field(default_factory=lambda: Path())
    superpixels: Superpixels | None = None
    sparsity: Sparsity | None = None
    competing: Competing | None = None
    evaluation: Evaluation | None = None
    judging: Judging | None = None

    @model_validator(mode="after")
    def _shards_fit(self) -> Experiment:
        for stage, section in self:
            for images in ("images", "validation_images"):
                count, shards = getattr(section, images, None), getattr(section, "shards", 1)
                if count is not None and shards > count:
                    raise ValueError(
                        f"{stage}.shards = {shards} is more than {stage}.{images} = {count}; "
                        "use at most one shard per image"
                    )
        return self

    @model_validator(mode="after")
    def _maps_are_there_to_judge(self) -> Experiment:
        if self.judging is None:
            return self
        if self.explanations is None:
            raise ValueError("judging needs explanations to judge; add `explanations`, or leave it out")
        if self.judging.images > self.explanations.images:
            raise ValueError(
                f"judging.images = {self.judging.images} is more than explanations.images = "
                f"{self.explanations.images}; judge fewer or explain more"
            )
        unknown = [name for name in self.judging.again or [] if name not in self.explanations.methods]
        if unknown:
            raise ValueError(
                f"judging.again: {unknown[0]!r} is not among explanations.methods; "
                f"choose from {', '.join(self.explanations.methods)}"
            )
        return self


class Report(Closed):
    """The HTML report."""

    title: str = Field("How far can you trust a saliency map?", description="Its heading.")
    experiments: list[str] | None = Field(None, description="Experiments shown; all when null.")
    gallery: int = Field(
        100,
        ge=0,
        description="Most images of an experiment with a page of their own in the gallery; 0 leaves it out.",
    )


class Config(Closed):
    """The whole configuration."""

    seed: int = Field(
        0, ge=0, description="Every random number derives from this, the image's id and a purpose."
    )
    device: str = Field(
        "auto",
        json_schema_extra={"pattern": CHOICE},
        description="Where networks run: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:<index>`.",
    )
    failure_threshold: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest share of failed images in a table before the run fails.",
    )
    datasets: dict[Name, Dataset] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)
    experiments: dict[Name, Experiment] = Field(min_length=1)
    studies: dict[Name, AnyStudy] = Field(
        default_factory=dict,
        description="Questions put to functions or networks of their own, by name; `kind` says which.",
    )
    report: Report = Field(default_factory=lambda: Report())

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not re.fullmatch(CHOICE, device):
            raise ValueError("choose auto, cpu, cuda or cuda:<index>")
        return device

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, raw: Any) -> Any:
        return without_left_out(raw) if isinstance(raw, dict) else raw


def load(raw: dict[str, Any]) -> Config:
    """Check a configuration and fill in its defaults.

    Args:
        raw: What the YAML file says.

    Returns:
        The configuration, complete.

    Raises:
        ConfigError: One line that names the key, what is wrong with it, and what to do.
    """
    check_plain(raw)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(one_line(error, Config)) from None
    _check_names(config)
    _check_registered(config)
    return config


def _check_names(config: Config) -> None:
    def check(key: str, name: str | None, known: dict[str, Any], where: str) -> None:
        if name is not None and name not in known:
            raise ConfigError(
                f"config: {key} = {name!r} is not a key of `{where}`; known: {', '.join(known)}"
            )

    for name, model in config.models.items():
        check(f"models.{name}.dataset", model.dataset, config.datasets, "datasets")
    for name, experiment in config.experiments.items():
        check(f"experiments.{name}.model", experiment.model, config.models, "models")
        check(f"experiments.{name}.smooth_model", experiment.smooth_model, config.models, "models")
        scenes = experiment.competing.scene_dataset if experiment.competing else None
        check(f"experiments.{name}.competing.scene_dataset", scenes, config.datasets, "datasets")
        smooth = experiment.smooth_model
        if smooth and config.models[smooth].dataset != config.models[experiment.model].dataset:
            raise ConfigError(
                f"config: experiments.{name}.smooth_model = {smooth!r} was trained on another data set than "
                f"{experiment.model!r}; name a model of the same data set"
            )
    for name in config.studies:
        if name in config.experiments:
            raise ConfigError(
                f"config: studies.{name} has the name of an experiment, whose results it would overwrite; "
                "rename one of them"
            )
    for index, name in enumerate(config.report.experiments or []):
        check(f"report.experiments.{index}", name, config.experiments, "experiments")


def _check_registered(config: Config) -> None:
    from curvelens import datasets, methods, models

    # The defaults are written back, so that a job sees every parameter and reruns when a default changes.
    for name, dataset in config.datasets.items():
        key = f"config: datasets.{name}"
        entry = datasets.REGISTRY.get(dataset.source, where=f"{key}.source")
        dataset.parameters = entry.parse(dataset.parameters, f"{key}.parameters").model_dump(mode="json")
    for name, model in config.models.items():
        key = f"config: models.{name}"
        entry = models.REGISTRY.get(model.architecture, where=f"{key}.architecture")
        needed = entry.traits.get("needs_weights")
        if needed and not (model.weights or model.weights_urls):
            raise ConfigError(
                f"{key}.weights is missing: architecture {model.architecture} needs {needed}; name it"
            )
        model.parameters = entry.parse(model.parameters, f"{key}.parameters").model_dump(mode="json")
    for name, experiment in config.experiments.items():
        for stage in ("explanations", "competing"):
            key = f"config: experiments.{name}.{stage}.methods"
            section = getattr(experiment, stage)
            chosen = section.methods if section else {}
            for method, parameters in chosen.items():
                entry = methods.REGISTRY.get(method, where=key)
                chosen[method] = entry.parse(parameters, f"{key}.{method}").model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration, with the parameters of every registered method."""
    from curvelens import datasets, methods, models

    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    for stage in ("Explanations", "Competing"):
        definitions[stage]["properties"]["methods"] |= {
            "additionalProperties": False,
            "properties": {entry.name: entry.parameters.model_json_schema() for entry in methods.REGISTRY},
        }
    for definition, key, registry in (
        ("Dataset", "source", datasets.REGISTRY),
        ("Model", "architecture", models.REGISTRY),
    ):
        definitions[definition]["properties"][key]["enum"] = registry.names()
        definitions[definition]["allOf"] = [
            {
                "if": {"properties": {key: {"const": entry.name}}, "required": [key]},
                "then": {"properties": {"parameters": entry.parameters.model_json_schema()}},
            }
            for entry in registry
        ]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
