"""What CAFO, CASO and their smooth variants have in common: parameters, shared work, and what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from curvelens.methods import Explanation, NoisyCopies
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.loss_curvature import LossCurvature
    from curvelens.targets import Scalar


class Penalties(Parameters):
    """The penalties on the change of the image."""

    l1: float | None = Field(
        None,
        ge=0,
        description="lambda_1 in units of the gradient; null takes `l1_share`, or chooses it by sparsity "
        "(Singla et al. 2019, Sec. 4.1).",
    )
    l1_share: float | None = Field(
        None, ge=0, le=1, description="lambda_1 as a share of the largest entry of the gradient, instead."
    )
    sparsity: float = Field(
        0.75, ge=0, lt=1, description="Smallest share of zero pixels of a lambda_1 that is chosen."
    )
    c1: float = Field(10.0, gt=0, description="lambda_2 = L/2 + c1, L the Hessian's largest eigenvalue.")
    tolerance: float = Field(
        1e-5, gt=0, lt=1, description="Largest relative KKT residual, where rounding allows it."
    )

    @model_validator(mode="after")
    def _one_l1(self) -> Penalties:
        if self.l1 is not None and self.l1_share is not None:
            raise ValueError("l1 and l1_share are both given; give one of them")
        return self

    @property
    def shared(self) -> tuple[float, ...]:
        """What gradient and Hessian depend on: methods that agree in it share them."""
        return (self.c1,)


class SmoothPenalties(Penalties, NoisyCopies):
    """The penalties, and how the image is perturbed."""

    samples: int = Field(50, ge=2, description="Noisy copies in pairs x ± noise.")
    tolerance: float = Field(
        1e-4, gt=0, lt=1, description="Largest relative KKT residual, where rounding allows it."
    )

    @property
    def shared(self) -> tuple[float, ...]:
        """As above, with the noise."""
        return self.c1, self.sigma, self.samples


def label_of(f: Scalar, x: Tensor) -> int:
    """Return the class that a scalar is about, else the one predicted at ``x [*shape]``.

    Raises:
        ArgumentError: ``f`` is no scalar of a network, whose loss could be explained.
    """
    import torch

    from curvelens import targets
    from curvelens.errors import ArgumentError

    if not isinstance(f, targets.Scalar):
        raise ArgumentError("cafo and caso explain the loss of a network; give a scalar of curvelens.targets")
    if f.module is None and f.indices and isinstance(f.indices[0], int):
        return f.indices[0]
    with torch.no_grad():
        return int(targets.logits(f.model)(x[None])[0].argmax())


def curvature_of(f: Scalar, x: Tensor, seed: int, parameters: Penalties) -> LossCurvature:
    """Return gradient and Hessian of the loss, for smooth variants in the mean over noisy copies."""
    from curvelens.loss_curvature import loss_curvature, smooth_loss_curvature
    from curvelens.seeds import derive

    label = label_of(f, x)
    if isinstance(parameters, SmoothPenalties):
        sigma, samples, noise = parameters.sigma, parameters.samples, derive(seed, "noisy copies")
        return smooth_loss_curvature(
            f.model, x, label, sigma=sigma, samples=samples, c1=parameters.c1, seed=noise
        )
    return loss_curvature(f.model, x, label, c1=parameters.c1, seed=derive(seed, "largest eigenvalue"))


def explain(
    f: Scalar, x: Tensor, parameters: Penalties, curvature: LossCurvature, second_order: bool
) -> Explanation:
    """Return the explanation with the numbers that it was made with.

    Args:
        f: Scalar of a network.
        x: The image, ``[*shape]``.
        parameters: Penalties.
        curvature: Gradient and Hessian of the loss.
        second_order: CASO, else CAFO.
    """
    from curvelens import targets
    from curvelens.context_aware.network import explain_loss

    loss = targets.loss(f.model, label_of(f, x))
    found = explain_loss(
        curvature,
        loss,
        x,
        second_order=second_order,
        l1=parameters.l1,
        l1_share=parameters.l1_share,
        c1=parameters.c1,
        least=parameters.sparsity,
        tolerance=parameters.tolerance,
    )
    numbers = {
        "lambda1": found.l1,
        "lambda1_share": found.l1_share,
        "lambda2": found.l2,
        "largest_eigenvalue": curvature.largest,
        "largest_eigenvalue_error": curvature.largest_error,
        "kkt_residual": found.explanation.residual,
        "iterations": found.explanation.iterations,
        "sparsity": found.sparsity,
        "loss": found.loss,
    }
    maps = {"attribution": -found.explanation.delta.to(x)}
    maps |= {name: x.new_tensor(number) for name, number in numbers.items()}
    return Explanation(maps, curvature.calls, forward_calls=found.evaluations)
