"""Attacks from local models, image by image (Torop et al. 2023, Tables 2, 4 and 8)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.attacks import Attack, attack, random_attack
from curvelens.errors import ConfigError
from curvelens.experiments.local_models import Kind, build, probability_models
from curvelens.experiments.rows import Item, per_image
from curvelens.seeds import derive
from curvelens.summaries.attacks import ATTACKS, METHODS
from curvelens.tables import frame
from curvelens.targets import probability

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.quadratic import LocalQuadratic
    from curvelens.store import ImageSet

# Methods that share the work of one local model: kind -> (second order, first order).
_FAMILIES: dict[Kind, tuple[str, str]] = {
    "smooth": ("SH+SG", "SG"),
    "softplus": ("SP H+G", "SP G"),
    "plain": ("H+G", "G"),
}
_PARAMETERS = {"smooth": "sigma_squared", "softplus": "beta"}
# The Lanczos method takes some tens of products for all sizes together, but one at a time: up to about this
# many features a dense Hessian, whose products are made in batches, is no slower.
_FEW_FEATURES = 1024


def local_models(
    method: str,
    model: torch.nn.Module,
    x: torch.Tensor,
    label: int,
    parameter_value: float | None = None,
    seed: int = 0,
    calls: int = 4096,
    estimator: str | None = None,
    second_order: bool = True,
) -> dict[str, LocalQuadratic]:
    """Return the local models of the SoftMax probability for a method and its sibling of the other order.

    Args:
        method: One of :data:`~curvelens.summaries.attacks.METHODS` but ``Random``.
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        label: Class whose probability is attacked.
        parameter_value: σ² > 0 for SH+SG and SG, β > 0 for SP H+G and SP G.
        seed: For the smoothing, derived by the caller from the image.
        calls: Gradient calls for the smoothing.
        estimator: Estimator of the smoothed Hessian; None means the default one.
        second_order: Whether the second-order model is wanted; without it SP G and G cost one gradient.

    Returns:
        Local models by method, e.g. ``{"SH+SG": ..., "SG": ...}``.

    Raises:
        ConfigError: If the method does not exist.
        ArgumentError: If a parameter is missing or out of range.
    """
    for kind, (second, first) in _FAMILIES.items():
        if method not in (second, first):
            continue
        if kind == "plain":
            found = probability_models(model, x, label)
        else:
            value = math.sqrt(parameter_value) if kind == "smooth" and parameter_value else parameter_value
            found = build(
                kind,
                model,
                lambda m: probability(m, label),
                x,
                value,
                seed,
                calls,
                estimator,
                second_order,
                products=_FEW_FEATURES,
            )
        names = {"H+G": second, "G": first}
        return {names[order]: q for order, q in found.items()}
    raise ConfigError(f"attack method {method!r} does not exist; choose from {', '.join(METHODS)}")


def attack_images(
    model: torch.nn.Module,
    images: ImageSet,
    *,
    split: str,
    magnitudes: Sequence[float],
    sigma_squared: Sequence[float] = (),
    betas: Sequence[float] = (),
    choices: pd.DataFrame | None = None,
    methods: Sequence[str] = METHODS,
    calls: int = 1568,
    estimator: str | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> pd.DataFrame:
    """Attack the predicted class's SoftMax probability of every image with every local model.

    On the validation split the whole grid is evaluated, so methods without a parameter are left out; on the
    test split only the chosen parameters are. First and second order share one local model, all sizes share
    one factorisation.

    Args:
        model: Classifier on ``device`` and in ``dtype``.
        images: The images.
        split: ``validation`` or ``test``.
        magnitudes: Sizes ε > 0.
        sigma_squared: Variances to try; validation only.
        betas: SoftPlus sharpnesses to try; validation only.
        choices: :data:`~curvelens.summaries.attacks.ATTACK_CHOICES`; test only.
        methods: Which of :data:`~curvelens.summaries.attacks.METHODS` to run.
        calls: Gradient calls of a smoothed model.
        estimator: Estimator of the smoothed Hessian; None means the default one.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Type to compute in; None means float32.

    Returns:
        The table :data:`~curvelens.summaries.attacks.ATTACKS`.

    Raises:
        ConfigError: For an unknown method or split, an empty grid, or a size without a choice.
    """
    grids = {"smooth": list(sigma_squared), "softplus": list(betas)}
    plan = _plan(split, list(magnitudes), list(methods), grids, choices)

    def run(item: Item) -> Iterator[dict[str, Any]]:
        for (kind, value), sizes in plan.items():
            yield from _attack_with(kind, value, sizes, model, item, seed, calls, estimator)

    rows = per_image(
        images, model, run, description=f"attacks ({split})", device=device, dtype=dtype,
        constants={"split": split},
    )  # fmt: skip
    return frame(rows, ATTACKS)


_Plan = dict[tuple[str, float | None], dict[str, list[float]]]


def _plan(
    split: str,
    magnitudes: list[float],
    methods: list[str],
    grids: Mapping[str, list[float]],
    choices: pd.DataFrame | None,
) -> _Plan:
    """What to run: (kind, parameter) -> method -> sizes."""
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ConfigError(f"attack method {unknown[0]!r} does not exist; choose from {', '.join(METHODS)}")
    if split not in ("validation", "test"):
        raise ConfigError(f"attacks: split must be validation or test, not {split!r}")
    plan: _Plan = {}
    for kind, family in _FAMILIES.items():
        for method in [m for m in family if m in methods]:
            if split == "validation" and kind != "plain":
                if not grids[kind]:
                    raise ConfigError(f"attacks: no {_PARAMETERS[kind]} to try; give at least one")
                for value in grids[kind]:
                    plan.setdefault((kind, value), {})[method] = magnitudes
            elif split == "test":
                for epsilon in magnitudes:
                    chosen = None if kind == "plain" else _chosen(choices, method, epsilon)
                    plan.setdefault((kind, chosen), {}).setdefault(method, []).append(epsilon)
    if split == "test" and "Random" in methods:
        plan["random", None] = {"Random": magnitudes}
    return plan


def _chosen(choices: pd.DataFrame | None, method: str, epsilon: float) -> float:
    if choices is not None:
        row = choices[(choices["method"] == method) & (choices["epsilon"] == epsilon)]
        if len(row) == 1:
            return float(row["parameter_value"].iloc[0])
    raise ConfigError(
        f"attacks: no parameter was chosen for {method} at epsilon = {epsilon:g}; run validation first"
    )


def _attack_with(
    kind: str,
    value: float | None,
    sizes: Mapping[str, list[float]],
    model: torch.nn.Module,
    item: Item,
    seed: int,
    calls: int,
    estimator: str | None,
) -> Iterator[dict[str, Any]]:
    """Rows of the attacks that share one local model."""
    if kind == "random":
        found = random_attack(model, item.x, sizes["Random"], item.image_id, seed, item.prediction)
        yield from (_row("Random", "", None, 0, result) for result in found)
        return
    image_seed = derive(seed, item.image_id, "attack smoothing")
    curved = any(method == second for method in sizes for second, _ in _FAMILIES.values())
    models = local_models(
        next(iter(sizes)), model, item.x, item.prediction, value, image_seed, calls, estimator, curved
    )
    for method, magnitudes in sizes.items():
        q = models[method]
        for result in attack(model, q, item.x, magnitudes, item.prediction):
            yield _row(method, _PARAMETERS.get(kind, ""), value, q.calls, result)


def _row(method: str, parameter: str, value: float | None, calls: int, result: Attack) -> dict[str, Any]:
    return {
        "method": method,
        "epsilon": result.epsilon,
        "parameter": parameter,
        "parameter_value": value,
        "changed": result.changed,
        "confidence_after": result.confidence,
        "predicted_decrease": result.predicted_decrease,
        "actual_decrease": result.actual_decrease,
        "optimality_residual": result.residual,
        "calls": calls,
    }
