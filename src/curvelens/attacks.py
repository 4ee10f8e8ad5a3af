"""Attacks from a local model: step to its minimum over a ball and see what the network says there.

The perturbed inputs are not clipped to the pixel range, as in Torop et al. 2023, App. D: an attack of size ε
has that size wherever the local model asks for it, and the comparison is between local models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from curvelens import targets
from curvelens.chunks import in_chunks
from curvelens.errors import ArgumentError
from curvelens.pgd import pgd_steps
from curvelens.quadratic import LocalQuadratic
from curvelens.seeds import generator
from curvelens.trust_region import TrustRegionStep, truncated_paper_step


@dataclass(frozen=True)
class Attack:
    """One attack on one image.

    Attributes:
        epsilon: size allowed, in the L2 norm, pixels in [0, 1].
        perturbed: ``[*shape]`` the input after the attack; its pixels may leave [0, 1].
        prediction: class with the largest logit there.
        changed: whether that is another class than before the attack.
        confidence: SoftMax probability, after the attack, of the class predicted before it.
        predicted_decrease: how far the local model expected the scalar to fall; NaN where there is none.
        actual_decrease: how far it fell.
        residual: optimality residual of the step in the local model; NaN where there is none.
    """

    epsilon: float
    perturbed: Tensor
    prediction: int
    changed: bool
    confidence: float
    predicted_decrease: float
    actual_decrease: float
    residual: float


def attack(
    model: nn.Module,
    q: LocalQuadratic,
    x: Tensor,
    epsilon: Sequence[float],
    label: int | None = None,
    f: Callable[[Tensor], Tensor] | None = None,
    truncation: float | None = None,
) -> list[Attack]:
    """Attack with the minimiser of a local model over each ball ``‖δ‖ ≤ ε`` (Torop et al. 2023, eq. 12).

    A model without curvature gives the first-order attack ``δ = −ε g/‖g‖``. All sizes share a factorisation.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        q: Local model of ``f`` at x.
        x: ``[*shape]``.
        epsilon: Sizes > 0.
        label: The class to leave; None means the predicted one.
        f: The scalar that q models, for ``actual_decrease``; None means the SoftMax probability of ``label``.
        truncation: None for the exact step; T in (0, 1] for the paper's, within the leading eigenvectors that
            carry the share T of the eigenvalues' magnitude (eq. 66-71).

    Returns:
        One :class:`Attack` for each size.

    Raises:
        ArgumentError: If no size is given, one is not positive, T is out of range, or q was made for another
            shape.
    """
    if q.gradient.shape != x.shape:
        shapes = f"{list(q.gradient.shape)}, x has {list(x.shape)}"
        raise ArgumentError(f"attack: the local model has shape {shapes}; build it at this x")
    steps = _minimisers(q, list(epsilon), truncation)
    return _judge(
        model,
        x,
        torch.stack([step.step for step in steps]),
        [step.radius for step in steps],
        label,
        f,
        [-step.value for step in steps],
        [step.residual for step in steps],
    )


def _minimisers(q: LocalQuadratic, sizes: list[float], truncation: float | None) -> list[TrustRegionStep]:
    if truncation is None or q.curvature is None:
        found = q.minimize(sizes)
        return found if isinstance(found, list) else [found]
    values, vectors = q.eigh()
    flat = q.gradient.reshape(-1)
    steps = [truncated_paper_step(flat, values, vectors, size, truncation) for size in sizes]
    return [replace(step, step=step.step.reshape(q.gradient.shape)) for step in steps]


def pgd_attack(
    model: nn.Module,
    x: Tensor,
    epsilon: Sequence[float],
    image_id: str,
    seed: int = 0,
    label: int | None = None,
    f: Callable[[Tensor], Tensor] | None = None,
    *,
    steps: int = 100,
    restarts: int = 5,
    relative_step: float = 0.05,
) -> list[Attack]:
    """Attack with projected gradient descent on the margin of the logits (:func:`curvelens.pgd.pgd_steps`).

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        epsilon: Sizes > 0.
        image_id: Name of the image; with ``seed`` it determines the starts.
        seed: Seed of the run.
        label: The class to leave; None means the predicted one.
        f: Scalar for ``actual_decrease``; None means the SoftMax probability of ``label``.
        steps: Gradient steps of each start.
        restarts: Starts: x, then random ones.
        relative_step: Length of a step divided by ε.

    Returns:
        One :class:`Attack` for each size, without a predicted decrease or a residual.

    Raises:
        ArgumentError: If a number is out of range.
    """
    sizes = list(epsilon)
    if label is None:
        with torch.no_grad():
            label = int(targets.logits(model)(x[None])[0].argmax())
    options = {"steps": steps, "restarts": restarts, "relative_step": relative_step, "seed": seed}
    moves = pgd_steps(model, x, sizes, image_id, label, **options)  # type: ignore[arg-type]
    unknown = [math.nan] * len(sizes)
    return _judge(model, x, moves, sizes, label, f, unknown, unknown)


def random_attack(
    model: nn.Module,
    x: Tensor,
    epsilon: Sequence[float],
    image_id: str,
    seed: int = 0,
    label: int | None = None,
    f: Callable[[Tensor], Tensor] | None = None,
) -> list[Attack]:
    """Attack along one direction drawn uniformly from the sphere, scaled to each size.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        epsilon: Sizes > 0.
        image_id: Name of the image; with ``seed`` it determines the direction.
        seed: Seed of the run.
        label: The class to leave; None means the predicted one.
        f: Scalar for ``actual_decrease``; None means the SoftMax probability of ``label``.

    Returns:
        One :class:`Attack` for each size, without a predicted decrease or a residual.

    Raises:
        ArgumentError: If no size is given or one is not positive.
    """
    sizes = list(epsilon)
    if not sizes or not all(0 < size < math.inf for size in sizes):
        raise ArgumentError(f"random_attack: sizes must be positive numbers, at least one, not {sizes}")
    source = generator(seed, image_id, "random attack")
    direction = torch.randn(x.shape, generator=source, dtype=torch.float64)
    direction = (direction / direction.norm()).to(x)
    steps = torch.stack([size * direction for size in sizes])
    unknown = [math.nan] * len(sizes)
    return _judge(model, x, steps, sizes, label, f, unknown, unknown)


def _judge(
    model: nn.Module,
    x: Tensor,
    steps: Tensor,
    sizes: Sequence[float],
    label: int | None,
    f: Callable[[Tensor], Tensor] | None,
    predicted: Sequence[float],
    residuals: Sequence[float],
) -> list[Attack]:
    """Run the network on x and on ``x + steps [m, *shape]``, in one batch."""
    points = torch.cat([x[None], x + steps])
    with torch.no_grad():
        scores = in_chunks(targets.logits(model), points, "logits")
        if label is None:
            label = int(scores[0].argmax())
        probabilities = scores.double().softmax(1)[:, label]
        after = probabilities if f is None else in_chunks(f, points, "values").double()
    classes, confidence, values = scores.argmax(1).tolist(), probabilities.tolist(), after.tolist()
    return [
        Attack(
            epsilon=float(sizes[i]),
            perturbed=points[i + 1],
            prediction=classes[i + 1],
            changed=classes[i + 1] != classes[0],
            confidence=confidence[i + 1],
            predicted_decrease=predicted[i],
            actual_decrease=values[0] - values[i + 1],
            residual=residuals[i],
        )
        for i in range(len(sizes))
    ]
