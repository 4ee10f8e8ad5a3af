"""CAFO, CASO and the clipped gradient along λ₁, and the choice of λ₁ (Singla et al. 2019, Sec. 4.1)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvelens import targets
from curvelens.context_aware import SparsityChoice, block_labels, choose_l1, choose_l2, l1_grid, sparsity
from curvelens.derivatives import value
from curvelens.experiments.rows import Item, per_image, solver
from curvelens.loss_curvature import LossCurvature, loss_curvature
from curvelens.seeds import derive
from curvelens.summaries.sparsity import CAFO, CASO, CLIPPED, METHODS, SPARSITY
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.sections.sparsity import Sparsity
    from curvelens.store import ImageSet

EXACT = 1e-4  # KKT residual beyond which an image is solved again in double precision
_NEIGHBOURS = 3  # pixels across, centre included


def sparsity_paths(
    model: torch.nn.Module,
    images: ImageSet,
    settings: Sparsity,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Solve CAFO and CASO along λ₁ for every image and kind of block, and choose λ₁ by sparsity.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]`` on ``device`` and in ``dtype``.
        images: N images.
        settings: What is computed.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Precision of the model; None means float32.

    Returns:
        The table :data:`SPARSITY` (an image that fails becomes a failed row), and arrays by name, one entry
        an image, b blocks and methods in the order of :data:`METHODS`, NaN where an image has no such entry:
        ``lambda1`` ``[N, m]`` and ``path`` ``[N, 3, m, H, W]``, magnitudes summed over channels along the
        λ₁ of the first kind of block; ``chosen`` ``[N, b, 3, H, W]``, those chosen; ``blocks`` ``[N, b]``,
        the kinds, and ``labels`` ``[N, b, H, W]``, the block of each pixel (−1 where the image failed).
    """
    found: dict[str, list[_Solved]] = {}

    def of_image(network: torch.nn.Module, item: Item) -> tuple[list[_Solved], int]:
        pixels = images.images[images.ids.index(item.image_id)]
        return _of_image(network, item, pixels, settings, derive(seed, item.image_id, "largest eigenvalue"))

    # Where λ₂ is large HΔ and 2λ₂Δ cancel, and what is left of single precision is too little.
    solutions = solver(model, of_image, lambda solved: _worst(solved[0]), EXACT)

    def solve(item: Item) -> list[dict[str, Any]]:
        every = solutions(item)
        made, calls = every[-1][0], sum(calls for _, calls in every)
        found[item.image_id] = made
        made[0].rows[0]["calls"] += calls - sum(row["calls"] for one in made for row in one.rows)
        return [row for one in made for row in one.rows]

    rows = per_image(images, model, solve, description="sparsity", device=device, dtype=dtype)
    for row in rows:
        row.setdefault("block", settings.blocks[0])
        row.setdefault("method", CAFO)
    return frame(rows, SPARSITY), _arrays(images, found, settings)


@dataclass(frozen=True, eq=False)
class _Solved:
    """What one image gives for one kind of block.

    Attributes:
        rows: Rows of the table.
        l1s: λ₁ of the path, rising, [m].
        path: Magnitudes summed over channels, [3, m, H, W].
        labels: Block of each pixel, [H, W].
        chosen: Place of the λ₁ chosen, for each method.
    """

    rows: list[dict[str, Any]]
    l1s: list[float]
    path: Tensor
    labels: Tensor
    chosen: list[int]


def _of_image(
    model: torch.nn.Module, item: Item, pixels: np.ndarray, settings: Sparsity, seed: int
) -> tuple[list[_Solved], int]:
    """Return what each kind of block gives, and the calls made for all."""
    curvature = loss_curvature(
        model, item.x, item.prediction, form=settings.curvature, c1=settings.c1, seed=seed
    )
    made = []
    for kind in settings.blocks:
        labels = block_labels(
            kind, pixels, patch=settings.patch, segments=settings.segments, compactness=settings.compactness
        )
        made.append(_solve(model, item, curvature, kind, labels, settings))
    return made, curvature.calls


def _worst(made: list[_Solved]) -> float:
    """Return the largest KKT residual."""
    return max(row["kkt_residual"] or 0.0 for one in made for row in one.rows)


def _solve(
    model: torch.nn.Module,
    item: Item,
    curvature: LossCurvature,
    kind: str,
    labels: np.ndarray | None,
    settings: Sparsity,
) -> _Solved:
    start = time.perf_counter()
    before = curvature.calls
    groups = None if labels is None else torch.as_tensor(labels, device=item.x.device)
    l2, g = choose_l2(curvature.largest, settings.c1), curvature.gradient
    loss = targets.loss(model, item.prediction)

    def choose(H: Any, also: list[float]) -> SparsityChoice:
        return choose_l1(
            g, H, l2, loss, item.x,
            least=settings.least, tolerance=settings.tolerance, groups=groups, also=also,
        )  # fmt: skip

    last = l1_grid(g, groups)[-1]
    also = [0.0, *(last / 2**k for k in range(1, settings.halvings + 1))]
    # Where one walk bisects, the other method gets those λ₁ too, so that every λ₁ has every method.
    first = choose(None, also)
    second = choose(curvature.hessian, [point.l1 for point in first.path])
    if len(second.path) > len(first.path):
        first = choose(None, [point.l1 for point in second.path])
    products = curvature.calls - before
    supports = _Supports(g, groups)
    writer = _Writer(item, kind, l2, loss, supports)
    rows: list[dict[str, Any]] = [
        *writer.of_choice(CAFO, first, 0),
        *writer.of_choice(CASO, second, products),
        *writer.of_clipped(second),
    ]
    rows[len(first.path)]["calls"] = products
    seconds = (time.perf_counter() - start) / len(rows)
    for row in rows:
        row |= {"seconds": seconds, "least": settings.least, "precision": _precision(item)}
    l1s = [point.l1 for point in second.path]
    maps = torch.stack(writer.maps).reshape(len(METHODS), len(l1s), *item.x.shape[-2:])
    places = [l1s.index(choice.l1) for choice in (first, second, second)]
    return _Solved(rows, l1s, maps, supports.blocks.reshape(item.x.shape[-2:]).cpu(), places)


def _arrays(images: ImageSet, found: dict[str, list[_Solved]], settings: Sparsity) -> dict[str, np.ndarray]:
    """Put the maps of all images into arrays; see :func:`sparsity_paths`."""
    n, kinds, methods = len(images), len(settings.blocks), len(METHODS)
    height, width = images.shape[1:]
    longest = max((len(made[0].l1s) for made in found.values()), default=0)
    arrays = {
        "blocks": np.array([settings.blocks] * n, dtype=np.str_),
        "lambda1": np.full((n, longest), np.nan),
        "path": np.full((n, methods, longest, height, width), np.nan, np.float32),
        "labels": np.full((n, kinds, height, width), -1, np.int32),
        "chosen": np.full((n, kinds, methods, height, width), np.nan, np.float32),
    }
    for index, image_id in enumerate(images.ids):
        for place, made in enumerate(found.get(image_id, [])):
            if place == 0:
                arrays["lambda1"][index, : len(made.l1s)] = made.l1s
                arrays["path"][index, :, : len(made.l1s)] = made.path.numpy()
            arrays["labels"][index, place] = made.labels.numpy()
            for number, chosen in enumerate(made.chosen):
                arrays["chosen"][index, place, number] = made.path[number, chosen].numpy()
    return arrays


class _Supports:
    """Which blocks the gradient has first: by magnitude summed over channels, and by CAFO.

    Args:
        g: Gradient, [C, H, W].
        groups: Integers [H, W], or None for single values, whose blocks are then the pixels.
    """

    def __init__(self, g: Tensor, groups: Tensor | None) -> None:
        self.gradient = g
        height, width = g.shape[-2:]
        pixels = torch.arange(height * width, device=g.device).reshape(height, width)
        self.blocks = (pixels if groups is None else groups).reshape(-1)
        self.count = int(self.blocks.max()) + 1
        sums = self._means(g.abs().double().sum(0).reshape(-1))
        if groups is None:
            strongest = g.abs().double().amax(0).reshape(-1)
        else:
            strongest = self._means(g.double().square().sum(0).reshape(-1))
        self._by_magnitude = sums.argsort(descending=True, stable=True)
        self._by_cafo = strongest.argsort(descending=True, stable=True)

    def _means(self, pixels: Tensor) -> Tensor:
        total = pixels.new_zeros(2, self.count)
        total[0].index_add_(0, self.blocks, pixels)
        total[1].index_add_(0, self.blocks, torch.ones_like(pixels))
        return total[0] / total[1]

    def of(self, delta: Tensor) -> Tensor:
        """Return which blocks of an explanation [C, H, W] are not zero, bool [blocks]."""
        kept = torch.zeros(self.count, dtype=torch.bool, device=delta.device)
        kept[self.blocks[(delta != 0).any(0).reshape(-1)]] = True
        return kept

    def clipped(self, count: int) -> Tensor:
        """Return the ``count`` blocks of largest mean magnitude, bool [blocks]."""
        return self._first(self._by_magnitude, count)

    def cafo(self, count: int) -> Tensor:
        """Return the ``count`` blocks that CAFO keeps longest as λ₁ rises, bool [blocks]."""
        return self._first(self._by_cafo, count)

    def mask(self, kept: Tensor) -> Tensor:
        """Return the pixels of blocks, bool [H·W]."""
        return kept[self.blocks]

    def _first(self, order: Tensor, count: int) -> Tensor:
        kept = torch.zeros(self.count, dtype=torch.bool, device=order.device)
        kept[order[:count]] = True
        return kept


class _Writer:
    """Makes the rows of an image and kind of block, and its maps."""

    def __init__(self, item: Item, kind: str, l2: float, loss: Any, supports: _Supports) -> None:
        self.item, self.kind, self.l2, self.loss, self.supports = item, kind, l2, loss, supports
        self.maps: list[Tensor] = []

    def of_choice(self, method: str, choice: SparsityChoice, products: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of CAFO or CASO."""
        for point in choice.path:
            made = point.explanation
            yield self._row(method, point.l1, choice, made.delta, choice.explanation.delta, point.loss) | {
                "step": point.step,
                "objective": made.objective,
                "kkt_residual": made.residual,
                "iterations": made.iterations,
                "products": products,
            }

    def of_clipped(self, choice: SparsityChoice) -> Iterator[dict[str, Any]]:
        """Yield the rows of the gradient clipped to the blocks of each CASO explanation."""
        chosen = self._clip(choice.explanation.delta)
        for point in choice.path:
            delta = self._clip(point.explanation.delta)
            moved = (self.item.x + delta.to(self.item.x) / (2 * self.l2))[None]
            yield self._row(CLIPPED, point.l1, choice, delta, chosen, float(value(self.loss, moved)))

    def _clip(self, delta: Tensor) -> Tensor:
        kept = self.supports.mask(self.supports.clipped(int(self.supports.of(delta).sum())))
        return self.supports.gradient * kept.reshape(delta.shape[-2:])

    def _row(
        self, method: str, l1: float, choice: SparsityChoice, delta: Tensor, chosen: Tensor, loss: float
    ) -> dict[str, Any]:
        own = self.supports.of(delta)
        count = int(own.sum())
        clipped = self.supports.clipped(count)
        shape = delta.shape[-2:]
        self.maps.append(delta.detach().abs().sum(0).float().cpu())
        return {
            "block": self.kind,
            "method": method,
            "lambda1": l1,
            "lambda2": self.l2,
            "step": None,
            "chosen": l1 == choice.l1,
            "satisfied": choice.satisfied,
            "blocks": self.supports.count,
            "sparsity": sparsity(delta),
            "block_sparsity": 1 - count / self.supports.count,
            "loss": loss,
            "objective": None,
            "kkt_residual": None,
            "iterations": None,
            "products": 0,
            "cosine": _cosine(delta, chosen),
            "jaccard_gradient": _jaccard(own, clipped),
            "jaccard_cafo": _jaccard(own, self.supports.cafo(count)),
            "isolated": isolated((delta != 0).any(0)),
            "isolated_gradient": isolated(self.supports.mask(clipped).reshape(shape)),
            "calls": 0,
        }


def _precision(item: Item) -> str:
    return str(item.x.dtype).removeprefix("torch.")


def isolated(support: Tensor) -> float:
    """Return the share of pixels of a support all of whose 8 neighbours lie outside it; NaN for none.

    Args:
        support: bool [H, W].
    """
    count = int(support.sum())
    if count == 0:
        return math.nan
    around = torch.nn.functional.avg_pool2d(
        support[None, None].double(), _NEIGHBOURS, 1, _NEIGHBOURS // 2, divisor_override=1
    )[0, 0]
    return float((support & (around.round() == 1)).sum()) / count


def _jaccard(a: Tensor, b: Tensor) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else math.nan


def _cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.reshape(-1).double(), b.reshape(-1).double()
    lengths = float(a.norm() * b.norm())
    return max(-1.0, min(1.0, float(a @ b) / lengths)) if lengths > 0 else math.nan
