"""Second-order explanations in the form of Captum's classes, to stand beside them.

    attribution = curvelens.attr.CASO(model).attribute(x, target=3)

takes what Captum's ``Saliency(model).attribute(x, target=3)`` takes, and gives a tensor of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from curvelens import targets
from curvelens.context_aware import ContextAware
from curvelens.context_aware.network import explain_loss
from curvelens.errors import ArgumentError
from curvelens.loss_curvature import loss_curvature
from curvelens.quadratic import LocalQuadratic
from curvelens.seeds import derive
from curvelens.smoothing import smooth_quadratic

Target = int | Tensor | Sequence[int] | None


class CASO(Attribution):
    """Context-aware second-order explanation (Singla et al. 2019, eq. 5): see :func:`curvelens.caso`.

    The function explained is the cross-entropy at the target; its Hessian is held in the form that costs
    fewest passes.

    Args:
        forward_func: Classifier ``[B, *shape] -> [B, c]``.
    """

    forward_func: nn.Module
    _second_order = True

    def attribute(
        self,
        inputs: Tensor,
        target: Target = None,
        *,
        l1: float | None = 0.0,
        c1: float = 10.0,
        tolerance: float = 1e-5,
        groups: Tensor | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Explain each input.

        Args:
            inputs: ``[B, *shape]``.
            target: Class of each input, or of all; None means the predicted ones.
            l1: λ₁ ≥ 0; None chooses it by sparsity (sec. 4.1), of pixels or of ``groups``.
            c1: λ₂ = L/2 + c₁, > 0.
            tolerance: Largest relative KKT residual, where rounding allows it.
            groups: Integers ``[*shape]``, or of its last dimensions, that put features together.
            seed: Seed of random first directions.

        Returns:
            Δ, ``[B, *shape]``.

        Raises:
            ArgumentError: If an argument is out of range.
        """
        return torch.stack(
            [
                found.delta.to(inputs.dtype)
                for found in self.explain(
                    inputs, target, l1=l1, c1=c1, tolerance=tolerance, groups=groups, seed=seed
                )
            ]
        )

    def explain(
        self,
        inputs: Tensor,
        target: Target = None,
        *,
        l1: float | None = 0.0,
        c1: float = 10.0,
        tolerance: float = 1e-5,
        groups: Tensor | None = None,
        seed: int = 0,
    ) -> list[ContextAware]:
        """Return what :meth:`attribute` does with objective and KKT residual, one explanation an input."""
        made = []
        for index, (x, label) in enumerate(
            zip(inputs, _labels(self.forward_func, inputs, target), strict=True)
        ):
            curvature = loss_curvature(
                self.forward_func, x, label, c1=c1, seed=derive(seed, "largest eigenvalue", index)
            )
            found = explain_loss(
                curvature,
                targets.loss(self.forward_func, label),
                x,
                second_order=self._second_order,
                l1=l1,
                c1=c1,
                tolerance=tolerance,
                groups=groups,
            )
            made.append(found.explanation)
        return made


class CAFO(CASO):
    """Context-aware first-order explanation (Singla et al. 2019, eq. 3) at the same λ₂ as :class:`CASO`."""

    _second_order = False


class SmoothHess(Attribution):
    """Interactions by the Hessian of the smoothed function (Torop et al. 2023): see
    :func:`curvelens.smooth_quadratic`.

    Args:
        forward_func: Network ``[B, *shape] -> [B, c]``.
    """

    forward_func: nn.Module

    def attribute(
        self,
        inputs: Tensor,
        target: Target = None,
        *,
        source: Tensor | None = None,
        sigma: float = 0.01,
        calls: int = 4096,
        seed: int = 0,
    ) -> Tensor:
        """Return how strongly each feature interacts with those of a source.

        Args:
            inputs: ``[B, *shape]``.
            target: Class whose logit is explained, for each input or for all; None means the predicted ones.
            source: Boolean ``[*shape]`` or of its last dimensions; None means all features.
            sigma: Standard deviation of the smoothing, > 0.
            calls: Gradient calls for each input.
            seed: Seed of the random directions.

        Returns:
            ``Σ_j H_ij`` over the source's features j, ``[B, *shape]``.

        Raises:
            ArgumentError: If an argument is out of range.
        """
        shape = inputs.shape[1:]
        mask = torch.ones(shape, dtype=torch.bool) if source is None else torch.as_tensor(source)
        if mask.shape != shape[len(shape) - mask.ndim :]:
            raise ArgumentError(f"attribute: source {list(mask.shape)} does not fit inputs {list(shape)}")
        v = mask.to(inputs).expand(shape)
        models = self.quadratics(inputs, target, sigma=sigma, calls=calls, seed=seed)
        return torch.cat([q.hvp(v[None]) for q in models])

    def quadratics(
        self, inputs: Tensor, target: Target = None, *, sigma: float = 0.01, calls: int = 4096, seed: int = 0
    ) -> list[LocalQuadratic]:
        """Return the local models behind :meth:`attribute`: SmoothGrad, SmoothHess and their error."""
        return [
            smooth_quadratic(
                targets.logit(self.forward_func, label), x, sigma=sigma, calls=calls, seed=derive(seed, index)
            )
            for index, (x, label) in enumerate(
                zip(inputs, _labels(self.forward_func, inputs, target), strict=True)
            )
        ]


def _labels(model: nn.Module, inputs: Tensor, target: Target) -> list[int]:
    if target is None:
        with targets.evaluation_mode(model), torch.no_grad():
            return [int(k) for k in model(inputs).argmax(1)]
    given = torch.as_tensor(target).reshape(-1).tolist()
    if len(given) not in (1, len(inputs)):
        raise ArgumentError(
            f"attribute: {len(given)} targets for {len(inputs)} inputs; give one, or one each"
        )
    return [int(k) for k in given] * (len(inputs) if len(given) == 1 else 1)
