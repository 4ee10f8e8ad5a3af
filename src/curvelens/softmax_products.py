"""The Hessian of the cross-entropy of a piecewise-linear classifier by its products alone.

``H v = J^T (diag p - p p^T) (J v)`` with J the Jacobian of the logits and p the softmax probabilities (Singla
et al. 2019, Proposition 1) takes one forward-mode and one reverse pass, whatever the number of classes: with
a thousand of them a dozen products replace the thousand reverse passes that the factor of
:mod:`curvelens.softmax_curvature` takes. For several inputs it is the mean of their Hessians, which
SmoothCASO asks for.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from curvelens.chunks import chunk_rows, in_chunks, memory_limit, run_in_chunks
from curvelens.errors import ArgumentError
from curvelens.nystrom import Largest, Nystrom
from curvelens.products import graph_bytes, pushforward
from curvelens.targets import Logits, evaluation_mode, logits

_COPIES = 6  # graph, tangents, and what forward mode copies, over the graph of a row
_MAX_ROWS = 64


class SoftmaxProducts:
    """Products of H, and all that was learnt from them.

    Attributes:
        gradient: Gradient of the cross-entropy at the label, mean over the inputs, ``[*shape]``.
        probabilities: Softmax probabilities, ``[n, c]``, float64.
        label: The label.
        known: Directions tried and their images.
    """

    def __init__(self, function: Logits, xs: Tensor, label: int | None, chunk: int | None) -> None:
        self._function, self._xs = function, xs.detach()
        with evaluation_mode(function.model):
            with torch.no_grad():
                scores = in_chunks(function, self._xs, "logits").double()
            if scores.shape[1] < 2:
                raise ArgumentError("softmax_products: the model has one class, whose loss is constant")
            self.probabilities = scores.softmax(1)
            self.label = int(self.probabilities.mean(0).argmax()) if label is None else label
            if not 0 <= self.label < scores.shape[1]:
                raise ArgumentError(
                    f"softmax_products: label {label} is out of range; classes are 0 to {scores.shape[1] - 1}"
                )
            self._push = pushforward(function)
            row = _COPIES * graph_bytes(function, self._xs[:1])
            self._rows = chunk or chunk_rows(row, memory_limit(xs.device), _MAX_ROWS)
            self.gradient = self._mean_gradient()
        self.known = Nystrom(self._products, self._xs[0].numel(), xs.dtype, xs.device)

    @property
    def size(self) -> int:
        """Number of features d."""
        return self.known.size

    @property
    def calls(self) -> int:
        """Reverse passes made: one for each input and product, and one for its gradient."""
        return len(self._xs) * (self.known.products + 1)

    def largest_eigenvalue(self, tolerance: float, seed: int = 0) -> Largest:
        """Return the largest eigenvalue of H, see :meth:`Nystrom.largest_eigenvalue`."""
        return self.known.largest_eigenvalue(self.gradient, tolerance, seed)

    def matvec(self, columns: Tensor) -> Tensor:
        """Return H times columns ``[d, m]``, in their dtype, and learn from it."""
        return self.known.apply(columns).to(columns.dtype)

    def fork(self) -> SoftmaxProducts:
        """Return products of the same H that know what is known now; either learns by itself from here on."""
        twin = copy.copy(self)
        twin.known = copy.copy(self.known)
        return twin

    def _mean_gradient(self) -> Tensor:
        slope = self.probabilities.clone()
        others = self.probabilities.sum(1) - self.probabilities[:, self.label]
        slope[:, self.label] = -others
        total = torch.zeros(self._xs.shape[1:], dtype=torch.float64, device=self._xs.device)

        def work(start: int, stop: int) -> None:
            total.add_(self._pull(self._xs[start:stop], slope[start:stop]).double().sum(0))

        run_in_chunks(len(self._xs), self._rows, work, "gradient of the loss", self._xs)
        return (total / len(self._xs)).to(self._xs.dtype)

    def _products(self, columns: Tensor) -> Tensor:
        """Return H times columns ``[d, m]`` in the dtype of the model."""
        count, m = len(self._xs), columns.shape[1]
        tangents = columns.T.reshape(m, *self._xs.shape[1:])
        out = torch.zeros(m, self.size, dtype=torch.float64, device=columns.device)

        def work(start: int, stop: int) -> None:
            pairs = torch.arange(start, stop, device=columns.device)
            row, column = pairs // m, pairs % m
            xs, p = self._xs[row], self.probabilities[row]
            change = self._push(xs, tangents[column]).double()
            cotangent = p * (change - (p * change).sum(1, keepdim=True))
            out.index_add_(0, column, self._pull(xs, cotangent).double().flatten(1))

        with evaluation_mode(self._function.model):
            run_in_chunks(count * m, self._rows, work, "products with the Hessian of the loss", self._xs)
        return (out.T / count).to(columns)

    def _pull(self, xs: Tensor, u: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = xs.detach().requires_grad_()
            return torch.autograd.grad(self._function(leaf), leaf, u.to(leaf))[0]


def softmax_products(
    model: nn.Module,
    x: Tensor,
    label: int | None = None,
    *,
    copies: bool = False,
    gauss_newton: bool = False,
    chunk: int | None = None,
) -> SoftmaxProducts:
    """Return the Hessian of the cross-entropy by its products (Singla et al. 2019, Proposition 1).

    Args:
        model: Piecewise-linear classifier, ``[B, *shape] -> [B, c]`` logits with ``c >= 2``.
        x: ``[*shape]`` with d entries; with ``copies``, ``[n, *shape]``, and H and gradient are means over n.
        label: Label of the gradient; by default the class of highest (mean) probability.
        copies: Whether x holds several inputs.
        gauss_newton: Accept a model not known to be piecewise linear, as for
            :func:`~curvelens.softmax_curvature.softmax_hessian`.
        chunk: Rows at once, >= 1; ``None`` chooses by memory.

    Raises:
        ArgumentError: The label is out of range, the model has fewer than two classes, or is not known to be
            piecewise linear.
    """
    function = logits(model)
    if not gauss_newton and not function.piecewise_linear:
        raise ArgumentError(
            "softmax_products: the model is not known to be piecewise linear, so a part may be missing; "
            "use hvp(targets.loss(model, k), x, v), or gauss_newton=True"
        )
    return SoftmaxProducts(function, x if copies else x[None], label, chunk)
