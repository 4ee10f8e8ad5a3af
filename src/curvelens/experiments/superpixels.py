"""Interactions between super-pixels of single images, by several local models (Torop et al. 2023, Fig. 6)."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens import seeds, targets
from curvelens.experiments.local_models import build
from curvelens.experiments.rows import Item, per_image
from curvelens.fidelity import Perturbations
from curvelens.summaries.superpixels import METHODS, SUPERPIXELS
from curvelens.superpixels import (
    Interactions,
    slic_segments,
    smooth_interactions,
    strongest_off_diagonal,
    strongest_pair,
    superpixel_interactions,
    with_interactions,
)
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from curvelens.quadratic import LocalQuadratic
    from curvelens.sections.superpixels import Superpixels
    from curvelens.store import ImageSet


def superpixels(
    model: torch.nn.Module,
    images: ImageSet,
    settings: Superpixels,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Sum interactions of the predicted logit over pairs of super-pixels, and measure the local models.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]`` on ``device`` and in ``dtype``.
        images: N images of 1 or 3 channels.
        settings: What is computed.
        seed: Seed of the run.
        device: Where to compute.
        dtype: Precision of the model; None means float32.

    Returns:
        The table :data:`SUPERPIXELS` (an image that fails becomes a failed row), and arrays by name, one
        entry an image: ``segments`` ``[N, H, W]`` (−1 where it failed), ``methods`` ``[N, m]``, and with s
        the most super-pixels, NaN beyond an image's own: ``interactions`` and ``errors`` (standard errors)
        ``[N, m, s, s]``, ``slopes`` (sums of the gradient) ``[N, m, s]``.
    """
    _, height, width = images.shape
    shape = (len(images), len(settings.methods), settings.segments[1])
    arrays = {
        "segments": np.full((len(images), height, width), -1, np.int64),
        "methods": np.array([settings.methods] * len(images), dtype=np.str_),
        "interactions": np.full((*shape, shape[-1]), np.nan),
        "errors": np.full((*shape, shape[-1]), np.nan),
        "slopes": np.full(shape, np.nan),
    }
    place = {image_id: index for index, image_id in enumerate(images.ids)}

    def compare(item: Item) -> list[dict[str, Any]]:
        index = place[item.image_id]
        segments = slic_segments(images.images[index], settings.segments, settings.compactness)
        measured = _Measured(model, item, segments, settings, seed)
        rows = measured.rows()
        arrays["segments"][index] = segments
        for number, method in enumerate(settings.methods):
            found = measured.interactions[method]
            count = len(found.first)
            arrays["interactions"][index, number, :count, :count] = found.second.cpu().numpy()
            arrays["errors"][index, number, :count, :count] = found.stderr.cpu().numpy()
            arrays["slopes"][index, number, :count] = found.first.cpu().numpy()
        return rows

    rows = per_image(images, model, compare, description="super-pixels", device=device, dtype=dtype)
    for row in rows:
        row.setdefault("method", settings.methods[0])
    return frame(rows, SUPERPIXELS), arrays


class _Measured:
    """The local models of one image, their interactions and their P_MSE."""

    def __init__(
        self, model: torch.nn.Module, item: Item, segments: np.ndarray, settings: Superpixels, seed: int
    ) -> None:
        self.model, self.item, self.segments, self.settings, self.seed = model, item, segments, settings, seed
        self.f = targets.logit(model, item.prediction)
        self.perturbations = Perturbations(
            self.f,
            item.x,
            [(settings.radius, settings.law)],
            samples=settings.samples,
            seed=seeds.derive(seed, item.image_id, "superpixels", "perturbations"),
        )
        self.interactions: dict[str, Interactions] = {}
        self._touching = touching(segments)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a method."""
        return [self._row(method) for method in self.settings.methods]

    def _row(self, method: str) -> dict[str, Any]:
        start = time.perf_counter()
        q, parameter, value = self._local_model(method)
        found = self.interactions[method]
        fidelity = self.perturbations.mse(q)[0]
        first = self.interactions[self.settings.methods[0]]
        shown, thing = strongest_pair(first.second, first.first)
        partner, interaction = strongest_off_diagonal(found.second, shown)
        return {
            "method": method,
            "parameter": parameter,
            "parameter_value": value,
            "superpixels": len(found.first),
            "object": thing,
            "shown": shown,
            "partner": partner,
            "interaction": interaction,
            "interaction_error": float(found.stderr[shown, partner]),
            "touching": bool(self._touching[shown, partner]),
            "relative_error": found.error,
            "agreement": _correlation(found.second.cpu().numpy(), first.second.cpu().numpy()),
            "radius": self.settings.radius,
            "law": self.settings.law,
            "pmse": fidelity.mean,
            "pmse_error": fidelity.stderr,
            "shared_scale": self.settings.shared_scale,
            "calls": found.calls + q.calls,
            "seconds": time.perf_counter() - start,
        }

    def _local_model(self, method: str) -> tuple[LocalQuadratic, str, float]:
        """Return a method's local model, with the name and value of its parameter; note its interactions."""
        item, settings = self.item, self.settings
        if method != METHODS[0]:
            kind, beta = (
                ("softplus", settings.beta) if method == METHODS[1] else ("swish", settings.swish_beta)
            )
            q = build(
                kind,  # type: ignore[arg-type]
                self.model,
                lambda network: targets.logit(network, item.prediction),
                item.x,
                beta,
            )["H+G"]
            self.interactions[method] = superpixel_interactions(q, self.segments)
            return q, "beta", beta
        sigma = settings.sigma_factor * settings.radius / math.sqrt(item.x.numel())
        drawn = seeds.derive(self.seed, item.image_id, "superpixels", "smoothing")
        q = build(
            "smooth",
            self.model,
            lambda network: targets.logit(network, item.prediction),
            item.x,
            sigma,
            seed=drawn,
            calls=settings.calls,
        )["H+G"]
        if settings.interaction_calls is None:
            self.interactions[method] = superpixel_interactions(q, self.segments)
        else:
            found = smooth_interactions(
                self.f, item.x, self.segments, sigma, settings.interaction_calls, drawn
            )
            self.interactions[method] = found
            q = with_interactions(q, self.segments, found.second)
        return q, "sigma", sigma


def touching(segments: np.ndarray) -> np.ndarray:
    """Return which super-pixels have a common border (4-neighbours), bool ``[s, s]``, symmetric.

    Args:
        segments: Integers ``[H, W]``, numbers 0 to s − 1.
    """
    count = int(segments.max()) + 1
    found = np.zeros((count, count), bool)
    for a, b in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1])):
        found[a.ravel(), b.ravel()] = True
    found |= found.T
    np.fill_diagonal(found, False)
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of the entries above the diagonals; NaN where one does not vary."""
    above = np.triu_indices(len(a), 1)
    a, b = a[above] - a[above].mean(), b[above] - b[above].mean()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / norms, -1, 1)) if norms > 0 else math.nan
