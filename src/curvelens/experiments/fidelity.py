"""Which local model predicts the network best: P_MSE of first and second order (Torop et al. 2023, sec. 5,
table 1).

Parameters (σ of the smoothing, β of SoftPlus) are chosen by ``summaries.fidelity.choose`` on validation
images alone; on test images :func:`measure` evaluates only what was chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curvelens import fidelity as pmse
from curvelens import targets
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import build
from curvelens.experiments.rows import Item, per_image
from curvelens.seeds import derive
from curvelens.summaries.fidelity import FIDELITY, METHODS, PARAMETERS, SCALARS, SPLITS
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from curvelens.experiments.local_models import Kind, ScalarFactory
    from curvelens.quadratic import LocalQuadratic
    from curvelens.store import ImageSet


@dataclass(frozen=True)
class Trial:
    """A local model to hold against the network in one setting.

    Attributes:
        scalar: Function that is modelled.
        method: One of :data:`METHODS`.
        radius: ε.
        law: Law of the perturbations.
        value: σ or β; None for G.
    """

    scalar: str
    method: str
    radius: float
    law: str
    value: float | None = None


def measure(
    model: nn.Module,
    images: ImageSet,
    *,
    split: str,
    radii: Sequence[float],
    laws: Sequence[str] = pmse.LAWS,
    scalars: Sequence[str] = SCALARS,
    methods: Sequence[str] = METHODS,
    neuron: tuple[str, int] | None = None,
    sigma_factors: Sequence[float] = (0.5, 0.75, 1.0),
    betas: Sequence[float] = (),
    choices: pd.DataFrame | None = None,
    calls: int = 1568,
    estimator: str | None = None,
    samples: int = 15_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Measure P_MSE of every local model on every image.

    The models of an image meet the same perturbations, at which the network is evaluated once; SH+SG and SG
    come from the same gradient calls.

    Args:
        model: Classifier on ``device`` and in ``dtype``.
        images: The images.
        split: ``validation`` tries every parameter, ``test`` those chosen.
        radii: ε > 0, L2 norm.
        laws: Some of :data:`curvelens.fidelity.LAWS`.
        scalars: Some of :data:`SCALARS`.
        methods: Some of :data:`METHODS`.
        neuron: Submodule and index of the inner neuron, from :func:`curvelens.targets.inner_neuron`.
        sigma_factors: σ = factor·ε/√d to try; validation only.
        betas: β of SoftPlus to try; validation only.
        choices: :data:`FIDELITY_CHOICES`; test only.
        calls: Gradient calls of a smoothed model.
        estimator: Estimator of the smoothed Hessian; None means the default one.
        samples: Perturbations for each image, radius and law.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Type to compute in; None means float32.

    Returns:
        The table :data:`FIDELITY`; an image that fails becomes a failed row.

    Raises:
        ConfigError: If an argument is unknown, empty or missing, or ``choices`` lacks a case.
    """
    _check(split, radii, neuron, choices, {"laws": laws, "scalars": scalars, "methods": methods})
    cases = [Trial(s, m, float(r), law) for s in scalars for m in methods for r in radii for law in laws]
    root = math.sqrt(math.prod(images.shape))
    sigmas = [factor / root for factor in sigma_factors]
    trials = _grid(cases, sigmas, betas) if choices is None else _chosen(cases, choices)
    of_image = _Measurement(model, list(trials), neuron, calls, estimator, samples, seed)
    constants, name = {"split": split}, f"fidelity, {split}"
    made = per_image(
        images, model, of_image, description=name, device=device, dtype=dtype, constants=constants
    )
    return frame(made, FIDELITY)


def _check(
    split: str,
    radii: Sequence[float],
    neuron: tuple[str, int] | None,
    choices: pd.DataFrame | None,
    names: Mapping[str, Sequence[str]],
) -> None:
    if split not in SPLITS:
        raise ConfigError(f"fidelity: split {split!r} does not exist; choose validation or test")
    if (choices is None) != (split == "validation"):
        raise ConfigError(
            "fidelity: the test split needs the choices made on validation images, the validation split none"
        )
    if not radii or not all(math.isfinite(radius) and radius > 0 for radius in radii):
        raise ConfigError(f"fidelity.radii: {list(radii)} must hold positive numbers")
    for name, known in {"laws": pmse.LAWS, "scalars": SCALARS, "methods": METHODS}.items():
        wrong = [value for value in names[name] if value not in known]
        if wrong or not names[name]:
            shown = repr(wrong[0]) if wrong else "an empty list"
            raise ConfigError(f"fidelity.{name}: {shown} will not do; choose from {', '.join(known)}")
    if "inner_neuron" in names["scalars"] and neuron is None:
        raise ConfigError("fidelity.scalars: inner_neuron needs neuron=; targets.inner_neuron finds one")


def _grid(cases: Sequence[Trial], sigmas: Sequence[float], betas: Sequence[float]) -> Iterator[Trial]:
    """Yield every case with every value; ``sigmas`` are for radius 1."""
    for case in cases:
        kind = PARAMETERS[case.method]
        values: list[float | None] = [None]
        if kind:
            values = [sigma * case.radius for sigma in sigmas] if kind == "sigma" else list(betas)
        if not values:
            grid = "sigma_factors" if kind == "sigma" else "betas"
            raise ConfigError(f"fidelity.{grid}: empty, but {case.method} needs values to try")
        for value in values:
            yield replace(case, value=value)


def _chosen(cases: Sequence[Trial], choices: pd.DataFrame) -> Iterator[Trial]:
    found = {
        (row.scalar, row.method, row.radius, row.law): float(row.parameter_value)
        for row in choices.itertuples()
    }
    for case in cases:
        value = None
        if PARAMETERS[case.method]:
            value = found.get((case.scalar, case.method, case.radius, case.law))
            if value is None:
                raise ConfigError(
                    f"fidelity: no parameter was chosen for {case.method} of {case.scalar} at radius = "
                    f"{case.radius:g}, law {case.law}; run validation first"
                )
        yield replace(case, value=value)


@dataclass(frozen=True)
class _Measurement:
    """What is done to one image."""

    model: nn.Module
    trials: list[Trial]
    neuron: tuple[str, int] | None
    calls: int
    estimator: str | None
    samples: int
    seed: int

    def __call__(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yield a row for each trial."""
        settings = sorted({(trial.radius, trial.law) for trial in self.trials})
        points = derive(self.seed, item.image_id, "perturbations")
        for scalar in dict.fromkeys(trial.scalar for trial in self.trials):
            factory = self._factory(scalar, item)
            wanted = [trial for trial in self.trials if trial.scalar == scalar]
            around = pmse.Perturbations(
                factory(self.model), item.x, settings, samples=self.samples, seed=points
            )
            for method, value, q, seconds in self._models(factory, item, wanted):
                tried = [trial for trial in wanted if (trial.method, trial.value) == (method, value)]
                if tried:
                    found = dict(zip(settings, around.mse(q), strict=True))
                    yield from (_row(trial, found[trial.radius, trial.law], q, seconds) for trial in tried)

    def _factory(self, scalar: str, item: Item) -> ScalarFactory:
        if scalar == "inner_neuron" and self.neuron is not None:
            name, index = self.neuron
            return lambda network: targets.neuron(network, name, index)
        return lambda network: targets.logit(network, item.prediction)

    def _models(
        self, factory: ScalarFactory, item: Item, trials: Sequence[Trial]
    ) -> Iterator[tuple[str, float | None, LocalQuadratic, float]]:
        """Yield (method, value, local model, seconds), one at a time so that memory holds one Hessian."""
        smoothing = derive(self.seed, item.image_id, "fidelity smoothing")
        pairs = sorted({(trial.method, trial.value or 0.0) for trial in trials})
        for sigma in sorted({value for method, value in pairs if PARAMETERS[method] == "sigma"}):
            start = time.perf_counter()
            both = build("smooth", self.model, factory, item.x, sigma, smoothing, self.calls, self.estimator)
            seconds = time.perf_counter() - start
            yield "SH+SG", sigma, both["H+G"], seconds
            yield "SG", sigma, both["G"], seconds
        for method, value in pairs:
            if PARAMETERS[method] == "sigma":
                continue
            start, order = time.perf_counter(), method.removeprefix("SP ")
            kind: Kind = "plain" if method == "G" else "softplus"
            found = build(kind, self.model, factory, item.x, value or None, second_order=order == "H+G")
            yield method, value or None, found[order], time.perf_counter() - start


def _row(trial: Trial, result: pmse.Fidelity, q: LocalQuadratic, seconds: float) -> dict[str, Any]:
    return {
        "scalar": trial.scalar,
        "method": trial.method,
        "radius": trial.radius,
        "law": trial.law,
        "parameter": PARAMETERS[trial.method],
        "parameter_value": trial.value,
        "pmse": result.mean,
        "pmse_stderr": result.stderr,
        "function_variance": result.variance,
        "curvature_error": q.error if trial.method == "SH+SG" else None,
        "seconds": seconds,
        "calls": q.calls,
    }
