"""Further Hessians at the same images: from a smooth to nearly a ReLU network, and of several classes.

A SoftPlus of sharpness beta tends to ReLU as beta grows. The Hessian does not tend to zero on the way: each
unit curves within about 1/beta of its breakpoint, and there in proportion to beta. So curvature first
concentrates on the few units whose pre-activation is near zero, and vanishes only when beta exceeds the
inverse of the smallest of them.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from curvelens import targets
from curvelens.derivatives import ZeroHessianWarning, gradient, hessian
from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments.rows import Item, per_image, require_finite
from curvelens.experiments.spectra import Thresholds, read_spectrum
from curvelens.summaries.spectra import SWEEP
from curvelens.surrogates import set_sharpness, softplus_surrogate
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.store import ImageSet
    from curvelens.targets import Scalar


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        betas: Sharpness of the surrogates.
        classes: Classes, from the most probable on, in the smooth network.
        segment: L2 distance over which the gradient's relative change is judged.
        thresholds: Where the verdicts change.
    """

    betas: Sequence[float] = (1.0, 10.0, 100.0)
    classes: int = 3
    segment: float = 1.0
    thresholds: Thresholds = field(default_factory=Thresholds)


def sweep(
    model: torch.nn.Module,
    smooth: torch.nn.Module | None,
    images: ImageSet,
    names: tuple[str, str],
    *,
    settings: Settings = Settings(),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> pd.DataFrame:
    """Read the spectra of surrogates of a network, and of several classes in a smooth one.

    Args:
        model: Classifier with ReLU modules, ``[B, C, H, W] -> [B, c]``; it is copied, not touched.
        smooth: Classifier with a smooth activation; None leaves the series ``classes`` out.
        images: The images.
        names: Names of the two networks for the table.
        settings: What is compared.
        device: Where to compute.
        dtype: Precision; near the ReLU limit single precision is not enough.

    Returns:
        The table :data:`SWEEP`; an image that fails has one failed row in each series.

    Raises:
        ConfigError: ``settings.betas`` are given for a network without ReLU modules.
    """
    rows: list[dict[str, Any]] = []
    if settings.betas:
        network = copy.deepcopy(model).to(device=device, dtype=dtype)
        try:
            surrogate = softplus_surrogate(network, settings.betas[0])
        except ArgumentError as error:
            raise ConfigError(f"spectra.betas: {error}; or set spectra.betas to []") from None

        def of_sharpness(item: Item) -> list[dict[str, Any]]:
            return list(_sharpness(network, surrogate, item, settings))

        constants = {"series": "sharpness", "model": names[0]}
        rows += _per_image(images, network, of_sharpness, constants, device, dtype)
    if smooth is not None and settings.classes:
        other = copy.deepcopy(smooth).to(device=device, dtype=dtype)

        def of_classes(item: Item) -> list[dict[str, Any]]:
            return list(_classes(other, item, settings))

        rows += _per_image(images, other, of_classes, {"series": "classes", "model": names[1]}, device, dtype)
    return frame(rows, SWEEP)


def _per_image(
    images: ImageSet,
    network: torch.nn.Module,
    measure: Any,
    constants: Mapping[str, str],
    device: torch.device | str,
    dtype: torch.dtype,
) -> list[dict[str, Any]]:
    return per_image(
        images, network, measure, description=f"spectra, {constants['series']}", device=device, dtype=dtype,
        constants=constants,
    )  # fmt: skip


def _sharpness(
    network: torch.nn.Module, surrogate: torch.nn.Module, item: Item, settings: Settings
) -> Iterator[dict[str, Any]]:
    own = gradient(targets.logit(network, item.prediction), item.x[None])[0]
    size = float(torch.linalg.vector_norm(own))
    f = targets.logit(surrogate, item.prediction)
    for beta in settings.betas:
        set_sharpness(surrogate, beta)
        read, g = _read(f, item, settings)
        off = float(torch.linalg.vector_norm(g - own)) / size if size > 0 else None
        yield _of_class(item, item.prediction) | read | {"beta": beta, "gradient_deviation": off}


def _classes(network: torch.nn.Module, item: Item, settings: Settings) -> Iterator[dict[str, Any]]:
    order = item.logits.argsort(descending=True)[: settings.classes].tolist()
    for k in order:
        read, _ = _read(targets.logit(network, k), item, settings)
        yield _of_class(item, k) | read


def _of_class(item: Item, k: int) -> dict[str, Any]:
    return {
        "of_class": k,
        "class_rank": 1 + int((item.logits > item.logits[k]).sum()),
        "class_probability": float(item.logits.softmax(0)[k]),
    }


def _read(f: Scalar, item: Item, settings: Settings) -> tuple[dict[str, Any], torch.Tensor]:
    g = gradient(f, item.x[None])[0]
    norm = float(torch.linalg.vector_norm(g))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroHessianWarning)  # the limit of sharpness, which is to be shown
        H = hessian(f, item.x).double()
    require_finite(gradient=g, Hessian=H)
    values = torch.linalg.eigvalsh(H).cpu().numpy()
    row: dict[str, Any] = read_spectrum(values, norm, settings.segment, settings.thresholds)
    return row | {"gradient_norm": norm, "calls": item.x.numel() + 1}, g
