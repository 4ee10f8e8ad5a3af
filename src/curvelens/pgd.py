"""A strong iterative attack, foolbox's projected gradient descent in the L2 ball, as the bound.

Madry et al. 2018 (arXiv:1706.06083); Rauber et al. 2020 (foolbox). Where a network is so sure that SoftMax
rounds to 1, the cross-entropy that foolbox would climb has no gradient; the margin of the logits has one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curvelens import targets
from curvelens.chunks import run_in_chunks
from curvelens.errors import ArgumentError
from curvelens.seeds import generator

if TYPE_CHECKING:
    from collections.abc import Callable


class _Balls(nn.Module):
    """The logits at ``x + size_i u_i``, and the best point of each ball seen so far.

    All balls and restarts then are one batch of points u in the unit ball, which foolbox attacks as it would
    attack images.
    """

    def __init__(self, model: nn.Module, x: Tensor, sizes: Tensor, label: int) -> None:
        super().__init__()
        self.logits = targets.logits(model)
        self.x, self.label = x, label
        self.sizes = sizes.reshape(-1, *[1] * x.ndim)
        self.margin = torch.full_like(sizes, -math.inf)
        self.best = torch.zeros(len(sizes), *x.shape, dtype=x.dtype, device=x.device)

    def forward(self, u: Tensor) -> Tensor:
        """Return the gradients ``[B, *shape]`` of the margin at the points u, one in each ball."""
        slopes = torch.empty_like(u)

        def work(start: int, stop: int) -> None:
            with torch.enable_grad():
                leaf = u[start:stop].detach().requires_grad_()
                reached = margins(self.logits(self.x + self.sizes[start:stop] * leaf), self.label)
                # Not by backward, which would leave a gradient in the network's parameters too.
                (slopes[start:stop],) = torch.autograd.grad(reached.sum(), leaf)
            better = reached.detach() > self.margin[start:stop]
            self.margin[start:stop][better] = reached.detach()[better]
            self.best[start:stop][better] = leaf.detach()[better]

        run_in_chunks(len(u), len(u), work, "projected gradient descent", u)
        return slopes


def margins(scores: Tensor, label: int) -> Tensor:
    """Return how far the best other class is above ``label``: ``max_{j≠k} z_j − z_k``, ``[B, c] -> [B]``."""
    others = scores.clone()
    others[:, label] = -math.inf
    return others.amax(1) - scores[:, label]


def pgd_steps(
    model: nn.Module,
    x: Tensor,
    epsilon: Sequence[float],
    image_id: str,
    label: int,
    *,
    steps: int = 100,
    restarts: int = 5,
    relative_step: float = 0.05,
    seed: int = 0,
) -> Tensor:
    """Climb the margin of the logits from several starts and return the best point of each ball.

    The first start is x itself, the others are uniform in the ball and the same directions for every size.
    Steps have the length ``relative_step · ε`` along the normalised gradient, then the point is projected
    onto the ball. Every point visited counts, not the last alone, and a point of a smaller ball counts for a
    larger one, so that the margin cannot fall as the ball grows. Pixels are not clipped: foolbox's bounds are
    set where they never bind.

    Args:
        model: Classifier ``[B, *shape] -> [B, c]``.
        x: ``[*shape]``.
        epsilon: Radii > 0, L2 norm.
        image_id: Name of the image; with ``seed`` it determines the starts.
        label: The class to leave.
        steps: Gradient steps of each start, at least 1.
        restarts: Starts, at least 1.
        relative_step: Length of a step divided by ε, > 0.
        seed: Seed of the run.

    Returns:
        Steps ``[m, *shape]`` in the order of ``epsilon``, each at most ε long but for rounding.

    Raises:
        ArgumentError: If a number is out of range.
    """
    sizes = sorted(set(epsilon))
    if not sizes or not all(0 < size < math.inf for size in sizes):
        raise ArgumentError(f"pgd: sizes must be positive numbers, at least one, not {list(epsilon)}")
    if steps < 1 or restarts < 1 or not 0 < relative_step < math.inf:
        raise ArgumentError(
            "pgd: needs steps >= 1, restarts >= 1 and relative_step > 0, "
            f"got {steps}, {restarts} and {relative_step}"
        )
    rows = torch.tensor(sizes, dtype=x.dtype, device=x.device).repeat(restarts)
    balls = _Balls(model, x.detach(), rows, label)
    starts = _starts(x, restarts, image_id, seed).repeat_interleave(len(sizes), 0)
    with targets.evaluation_mode(model):
        _climb(balls, starts, steps, relative_step)
    margin = balls.margin.reshape(restarts, -1)
    winner = margin.argmax(0)
    places = torch.arange(len(sizes), device=x.device)
    found = balls.best.reshape(restarts, len(sizes), *x.shape)[winner, places]
    reached = margin[winner, places].tolist()
    moves: dict[float, Tensor] = {}
    best = 0
    for i, size in enumerate(sizes):
        best = i if reached[i] > reached[best] else best
        moves[size] = sizes[best] * found[best]
    return torch.stack([moves[size] for size in epsilon])


def _starts(x: Tensor, restarts: int, image_id: str, seed: int) -> Tensor:
    """Return the centre and ``restarts − 1`` points uniform in the unit ball, ``[restarts, *shape]``."""
    source = generator(seed, image_id, "pgd")
    d = x.numel()
    directions = torch.randn(restarts, d, generator=source, dtype=torch.float64)
    lengths = torch.rand(restarts, 1, generator=source, dtype=torch.float64) ** (1 / d)
    starts = lengths * directions / directions.norm(dim=1, keepdim=True)
    starts[0] = 0
    return starts.to(x).reshape(restarts, *x.shape)


def _climb(balls: _Balls, starts: Tensor, steps: int, relative_step: float) -> None:
    """Run foolbox's attack in the unit ball from given starts, in one batch."""
    with warnings.catch_warnings():
        # Of an import from SciPy inside foolbox.
        warnings.simplefilter("ignore", DeprecationWarning)
        import eagerpy
        from foolbox import PyTorchModel
        from foolbox.attacks import L2ProjectedGradientDescentAttack
        from foolbox.criteria import Misclassification

    class MarginAttack(L2ProjectedGradientDescentAttack):
        """Foolbox's attack on another loss, from starts that do not depend on the device.

        Its own would differentiate all points at once, whether or not they fit in memory.
        """

        def value_and_grad(self, loss_fn: Callable[[Any], Any], x: Any) -> tuple[Any, Any]:
            return None, eagerpy.astensor(balls(x.raw))  # nobody looks at the value

        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return eagerpy.astensor(starts)

    wrapped = PyTorchModel(balls.eval(), bounds=(-2, 2), device=starts.device)  # |u| ≤ 1: never reached
    criterion = Misclassification(torch.full((len(starts),), balls.label, device=starts.device))
    climb = MarginAttack(rel_stepsize=relative_step, steps=steps, random_start=True)
    balls(
        climb.run(wrapped, torch.zeros_like(starts), criterion, epsilon=1.0)
    )  # the last points count as well
