"""Which local model predicts the network best: P_MSE of first and second order (Torop et al. 2023, sec. 5,
table 1).

Parameters (σ of the smoothing, β of SoftPlus) are chosen by ``summaries.fidelity.choose`` on validation
images alone; on test images :func:`measure` evaluates only what was chosen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from curvelens import fidelity as pmse
from curvelens import targets
from curvelens.control_variate import ControlVariate
from curvelens.errors import ConfigError
from curvelens.experiments.fidelity_trials import Trial, cases, chosen, grid, possible
from curvelens.experiments.local_models import Kind, build
from curvelens.experiments.rows import Item, per_image
from curvelens.seeds import derive
from curvelens.summaries.fidelity import (
    COVARIANCES,
    FIDELITY,
    METHODS,
    PARAMETERS,
    SCALARS,
    SPLITS,
)
from curvelens.tables import frame
from curvelens.taylor import is_dense

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from torch import nn

    from curvelens.experiments.local_models import ScalarFactory
    from curvelens.quadratic import LocalQuadratic
    from curvelens.store import ImageSet


USUAL_FACTOR = 0.75  # of ε/√d, what Torop et al. 2023 choose for σ (Table 3)
_Key = tuple[str, str, float | None]
KINDS: dict[str, tuple[Kind, str]] = {
    "SP H+G": ("softplus", "H+G"),
    "SP G": ("softplus", "G"),
    "SW H+G": ("swish", "H+G"),
    "SW G": ("swish", "G"),
    "G": ("plain", "G"),
}


def measure(
    model: nn.Module,
    images: ImageSet,
    *,
    split: str,
    radii: Sequence[float],
    laws: Sequence[str] = pmse.LAWS,
    scalars: Sequence[str] = SCALARS,
    methods: Sequence[str] | None = None,
    covariance: Sequence[str] = ("isotropic",),
    shapes: Mapping[str, torch.Tensor] | None = None,
    neuron: tuple[str, int] | None = None,
    sigma_factors: Sequence[float] = (0.5, 0.75, 1.0),
    betas: Sequence[float] = (),
    swish_betas: Sequence[float] = (),
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
        methods: Some of :data:`METHODS`; None means all that have values to try, or a choice.
        covariance: Some of :data:`COVARIANCES`, each a row of SH+SG and SG.
        shapes: From :func:`curvelens.experiments.covariances.shape`, by covariance; none for ``isotropic``.
        neuron: Submodule and index of the inner neuron, from :func:`curvelens.targets.inner_neuron`.
        sigma_factors: σ = factor·ε/√d to try; validation only.
        betas: β of SoftPlus to try; validation only.
        swish_betas: The same for Swish.
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
    methods = possible(choices, betas, swish_betas) if methods is None else methods
    named = {"laws": laws, "scalars": scalars, "methods": methods, "covariance": covariance}
    shapes = dict(shapes or {})
    _check(split, radii, neuron, choices, named, shapes)
    wanted = cases(scalars, methods, covariance, radii, laws)
    root = math.sqrt(math.prod(images.shape))
    sigmas = [factor / root for factor in sigma_factors]
    tried = {"betas": betas, "swish_betas": swish_betas}
    trials = grid(wanted, sigmas, tried) if choices is None else chosen(wanted, choices)
    shapes = {kind: shape.to(device=device, dtype=dtype) for kind, shape in shapes.items()}
    of_image = _Measurement(model, list(trials), neuron, shapes, calls, estimator, samples, seed)
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
    shapes: Mapping[str, torch.Tensor],
) -> None:
    if split not in SPLITS:
        raise ConfigError(f"fidelity: split {split!r} does not exist; choose validation or test")
    if (choices is None) != (split == "validation"):
        raise ConfigError(
            "fidelity: the test split needs the choices made on validation images, the validation split none"
        )
    if not radii or not all(math.isfinite(radius) and radius > 0 for radius in radii):
        raise ConfigError(f"fidelity.radii: {list(radii)} must hold positive numbers")
    known_names = {"laws": pmse.LAWS, "scalars": SCALARS, "methods": METHODS, "covariance": COVARIANCES}
    for name, known in known_names.items():
        wrong = [value for value in names[name] if value not in known]
        if wrong or not names[name]:
            shown = repr(wrong[0]) if wrong else "an empty list"
            raise ConfigError(f"fidelity.{name}: {shown} will not do; choose from {', '.join(known)}")
    if "inner_neuron" in names["scalars"] and neuron is None:
        raise ConfigError("fidelity.scalars: inner_neuron needs neuron=; targets.inner_neuron finds one")
    missing = [kind for kind in names["covariance"] if kind != "isotropic" and kind not in shapes]
    if missing:
        raise ConfigError(
            f"fidelity.covariance: {missing[0]} needs shapes=; experiments.covariances.shape makes one"
        )


@dataclass(frozen=True)
class _Measurement:
    """What is done to one image."""

    model: nn.Module
    trials: list[Trial]
    neuron: tuple[str, int] | None
    shapes: dict[str, torch.Tensor]
    calls: int
    estimator: str | None
    samples: int
    seed: int
    surrogates: dict[Kind, nn.Module] = field(default_factory=dict)

    def __call__(self, item: Item) -> Iterator[dict[str, Any]]:
        """Yield a row for each trial."""
        settings = sorted({(trial.radius, trial.law) for trial in self.trials})
        factories = {
            scalar: self._factory(scalar, item) for scalar in dict.fromkeys(t.scalar for t in self.trials)
        }
        arounds = pmse.Perturbations.jointly(
            [factory(self.model) for factory in factories.values()],
            item.x,
            settings,
            samples=self.samples,
            seed=derive(self.seed, item.image_id, "perturbations"),
        )
        for scalar, around in zip(factories, arounds, strict=True):
            wanted = [trial for trial in self.trials if trial.scalar == scalar]
            smoothed = list(self._smoothed(factories[scalar], item, wanted))
            measured = self._control(around, wanted, smoothed) or around
            for key, q, seconds in chain(smoothed, self._unsmoothed(factories[scalar], item, wanted)):
                tried = [trial for trial in wanted if _key(trial) == key]
                places = [(trial.radius, trial.law) for trial in tried]
                for trial, found in zip(tried, measured.mse(q, places) if tried else [], strict=True):
                    yield _row(trial, found, q, seconds)

    def _factory(self, scalar: str, item: Item) -> ScalarFactory:
        if scalar == "inner_neuron" and self.neuron is not None:
            name, index = self.neuron
            return lambda network: targets.neuron(network, name, index)
        return lambda network: targets.logit(network, item.prediction)

    def _smoothed(
        self, factory: ScalarFactory, item: Item, trials: Sequence[Trial]
    ) -> Iterator[tuple[_Key, LocalQuadratic, float]]:
        """Yield (key, local model, seconds) of SH+SG and SG, from the same gradient calls."""
        smoothing = derive(self.seed, item.image_id, "fidelity smoothing")
        keys = [_key(trial) for trial in trials if PARAMETERS[trial.method] == "sigma"]
        for covariance, sigma in dict.fromkeys((key[1], key[2] or 0.0) for key in keys):
            start = time.perf_counter()
            scaled = sigma * self.shapes[covariance] if covariance in self.shapes else sigma
            both = build("smooth", self.model, factory, item.x, scaled, smoothing, self.calls, self.estimator)
            seconds = time.perf_counter() - start
            yield ("SH+SG", covariance, sigma), both["H+G"], seconds
            yield ("SG", covariance, sigma), both["G"], seconds

    def _unsmoothed(
        self, factory: ScalarFactory, item: Item, trials: Sequence[Trial]
    ) -> Iterator[tuple[_Key, LocalQuadratic, float]]:
        """Yield the same of the other methods, one at a time so that memory holds one of their Hessians."""
        keys = [_key(trial) for trial in trials if PARAMETERS[trial.method] != "sigma"]
        for method, covariance, value in dict.fromkeys(keys):
            start, (kind, order) = time.perf_counter(), KINDS[method]
            found = build(
                kind,
                self.model,
                factory,
                item.x,
                value,
                second_order=order == "H+G",
                surrogates=self.surrogates,
                products=self.samples,
            )
            yield (method, covariance, value), found[order], time.perf_counter() - start

    def _control(
        self,
        around: pmse.Perturbations,
        trials: Sequence[Trial],
        smoothed: Sequence[tuple[_Key, LocalQuadratic, float]],
    ) -> ControlVariate | None:
        """Return what measures many models faster than one by one, where that pays.

        It costs about a quadratic form of all perturbations for each setting, so there should be more full
        Hessians than settings. The reference of a setting is SH+SG at the σ nearest to ¾ ε/√d.
        """
        full = {_key(trial) for trial in trials if trial.method in ("SP H+G", "SW H+G")}
        settings, x = around.points.settings, around.points.x
        known = [(key[2] or 0.0, q) for key, q, _ in smoothed if key[:2] == ("SH+SG", "isotropic")]
        if not known or len(full) < len(settings) or not is_dense(x.numel(), self.samples):
            return None
        aims = [USUAL_FACTOR * radius / math.sqrt(x.numel()) for radius, _ in settings]
        return ControlVariate(
            around, [min(known, key=lambda one: abs(math.log(one[0] / aim)))[1] for aim in aims]
        )


def _key(trial: Trial) -> _Key:
    """What tells local models of one scalar apart."""
    return trial.method, trial.covariance, trial.value


def _row(trial: Trial, result: pmse.Fidelity, q: LocalQuadratic, seconds: float) -> dict[str, Any]:
    return {
        "scalar": trial.scalar,
        "method": trial.method,
        "covariance": trial.covariance,
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
