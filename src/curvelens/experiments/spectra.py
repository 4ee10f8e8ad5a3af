"""How curved is a network: spectra of the full input Hessian of the largest logit, and what they mean.

The gradient of a smooth (SoftPlus) network changes with its Hessian; that of a piecewise-linear (ReLU)
network, whose Hessian is zero, jumps where linear regions end. Both are measured, on the same segment from
each image. The scalar is the logit of the class predicted at the image, also where another becomes larger.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curvelens import seeds, targets
from curvelens.derivatives import ZeroHessianWarning, gradient, hessian, value
from curvelens.errors import ConfigError, ModelError
from curvelens.experiments.rows import Item, per_image, require_finite
from curvelens.regions import region_radius, regions_along
from curvelens.summaries.spectra import (
    ANISOTROPIC,
    CONCAVE,
    CONVEX,
    EIGENVALUES,
    FLAT,
    MIXED,
    PIECEWISE,
    SPECTRA,
)
from curvelens.tables import frame

if TYPE_CHECKING:
    import pandas as pd

    from curvelens.store import ImageSet
    from curvelens.targets import Scalar


@dataclass(frozen=True)
class Thresholds:
    """Where the verdicts change; dimensionless.

    Attributes:
        near_zero: Eigenvalues within this share of the spectral radius count as zero.
        flat: Below this relative change of the gradient over the segment the function is flat.
        one_signed: From this share of Σ|λ| on, one sign decides between convex and concave.
        anisotropic: From this ratio of largest to mean |λ| on, a spectrum of both signs is anisotropic.
    """

    near_zero: float = 1e-3
    flat: float = 0.1
    one_signed: float = 0.95
    anisotropic: float = 10.0


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        segment: L2 length of the segment, in a random direction, that gradient changes refer to.
        vectors: Eigenvectors kept of either end of the spectrum, for figures.
        seed: Seed of the run.
        thresholds: Where the verdicts change.
    """

    segment: float = 1.0
    vectors: int = 3
    seed: int = 0
    thresholds: Thresholds = Thresholds()


def spectra(
    model: torch.nn.Module,
    images: ImageSet,
    indices: Sequence[int] | None,
    model_name: str,
    activation: str | None,
    *,
    settings: Settings = Settings(),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, np.ndarray]]:
    """Compute and read the input Hessian's spectrum at every image.

    Args:
        model: Classifier ``[B, C, H, W] -> [B, c]``; it is copied, not touched.
        images: N images.
        indices: Positions of the n images to use; None for all.
        model_name: Name for the tables.
        activation: ``relu`` for a piecewise-linear network, else the name of its smooth nonlinearity; None
            takes ``relu`` where the network is known to be piecewise linear, ``curved`` where it is not.
        settings: Lengths and thresholds.
        device: Where to compute.
        dtype: Precision of network and Hessian; the numerical checks need float64.

    Returns:
        The tables :data:`SPECTRA` and :data:`EIGENVALUES`, and arrays by name, one entry an image, NaN where
        it failed: ``gradient`` ``[n, C, H, W]``, ``eigenvectors`` ``[n, 2k, C, H, W]`` of unit length of
        the k largest eigenvalues, descending, and of the k smallest, ascending: ``extreme_eigenvalues``
        ``[n, 2k]``; zero where the Hessian is zero.

    Raises:
        ConfigError: The segment's length is not positive, or near_zero is not in (0, 1).
        ModelError: ``activation`` contradicts the model.
    """
    _require_sense(settings)
    network = copy.deepcopy(model).to(device=device, dtype=dtype)
    linear = targets.logits(network).piecewise_linear
    activation = activation or ("relu" if linear else "curved")
    if linear != (activation == "relu"):
        kind = "piecewise linear" if linear else "not piecewise linear"
        raise ModelError(
            f"spectra: model {model_name!r} is {kind}, which contradicts activation {activation!r}; "
            "name the activation 'relu' if and only if the network has ReLU-type modules only"
        )
    images = images if indices is None else images.subset(indices)
    found: dict[str, dict[str, np.ndarray]] = {}

    def measure(item: Item) -> dict[str, Any]:
        f = targets.logit(network, item.prediction)
        row, found[item.image_id] = _measure(f, item, settings)
        return row

    rows = per_image(
        images,
        network,
        measure,
        description=f"spectra of {model_name}",
        device=device,
        dtype=dtype,
        constants={"model": model_name, "activation": activation, "scalar": "max_logit"},
    )
    kept = {image_id: found[image_id] for image_id in images.ids if image_id in found}
    arrays = _stack(kept, images, settings.vectors)
    return frame(rows, SPECTRA), _eigenvalue_table(kept, model_name), arrays


def _require_sense(settings: Settings) -> None:
    if not (math.isfinite(settings.segment) and settings.segment > 0):
        raise ConfigError(f"spectra.segment: {settings.segment:g} is not a length; give a number > 0, e.g. 1")
    if not 0 < settings.thresholds.near_zero < 1:
        near_zero = settings.thresholds.near_zero
        raise ConfigError(f"spectra.near_zero: {near_zero:g} is not in (0, 1); give e.g. 0.001")


def _measure(f: Scalar, item: Item, settings: Settings) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return one image's row, and its spectrum, leading eigenvectors and gradient."""
    x, d = item.x, item.x.numel()
    g = gradient(f, x[None])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroHessianWarning)  # the zero is what is to be shown
        H = hessian(f, x).double()
    require_finite(gradient=g, Hessian=H)
    values, extreme, vectors = _spectrum(H, min(settings.vectors, d // 2))
    direction = _direction(item, settings.seed)
    end = x + settings.segment * direction
    norm = float(torch.linalg.vector_norm(g))
    change = float(torch.linalg.vector_norm(gradient(f, end[None])[0] - g))
    row: dict[str, Any] = read_spectrum(values, norm, settings.segment, settings.thresholds)
    row |= {"gradient_norm": norm, "gradient_change": change / norm if norm > 0 else math.nan}
    row |= {"calls": 2} if f.piecewise_linear else {"calls": d + 2}
    if f.piecewise_linear:
        row["verdict"] = PIECEWISE
        row |= _regions(f, x, end)
    elif row["spectral_radius"] > 0:
        leading = extreme.abs().argsort(descending=True)
        row |= _checks(f, x, g, extreme[leading], vectors[leading])
        row["calls"] += 2
    row["calls"] += 2 * int(row.get("regions_crossed", 0))
    arrays = {"extreme_eigenvalues": extreme, "eigenvectors": vectors, "gradient": g}
    return row, {name: array.cpu().numpy() for name, array in arrays.items()} | {"eigenvalues": values}


def _direction(item: Item, seed: int) -> Tensor:
    """Return the image's random unit direction ``[*shape]``, the same for every network."""
    generator = seeds.generator(seed, item.image_id, "spectra segment")
    noise = torch.randn(item.x.shape, generator=generator, dtype=torch.float64)
    return (noise / torch.linalg.vector_norm(noise)).to(item.x)


def _spectrum(H: Tensor, k: int) -> tuple[np.ndarray, Tensor, Tensor]:
    """Return all eigenvalues ``[d]``, descending, the k largest and k smallest, their vectors ``[2k, d]``.

    The largest come in descending, the smallest in ascending order.
    """
    if not H.any():
        return np.zeros(len(H)), H.new_zeros(2 * k), H.new_zeros(2 * k, len(H))
    values, vectors = torch.linalg.eigh(H)
    rank = torch.arange(len(H), device=H.device)
    ends = torch.cat([rank.flip(0)[:k], rank[:k]])
    return values.flip(0).cpu().numpy(), values[ends], vectors.mT[ends]


def read_spectrum(
    eigenvalues: np.ndarray, gradient_norm: float, segment: float, thresholds: Thresholds = Thresholds()
) -> dict[str, float | str]:
    """Read a spectrum: signs, size, effective rank, anisotropy, verdict.

    The effective rank is ``exp(−Σ p log p)`` with ``p = |λ|/Σ|λ|`` (Roy and Vetterli 2007, here of the
    eigenvalues' magnitudes), the anisotropy ``max|λ| / mean|λ|``, in [1, d].

    Args:
        eigenvalues: All eigenvalues ``[d]`` of a Hessian, in any order.
        gradient_norm: L2 norm of the gradient there.
        segment: L2 distance over which the gradient's relative change ``max|λ|·segment/‖g‖`` is judged.
        thresholds: Where the verdicts change.

    Returns:
        The columns ``positive_share`` to ``verdict`` of :data:`SPECTRA`.
    """
    values = np.sort(np.asarray(eigenvalues, float))[::-1]
    sizes = np.abs(values)
    radius, total = float(sizes.max()), float(sizes.sum())
    bound = thresholds.near_zero * radius
    p = sizes[sizes > 0] / total
    mass = float(values[values > 0].sum()) / total if total > 0 else math.nan
    anisotropy = radius / float(sizes.mean()) if total > 0 else 1.0
    change = radius * segment / gradient_norm if gradient_norm > 0 else (math.inf if radius > 0 else 0.0)
    if change < thresholds.flat:
        verdict = FLAT
    elif max(mass, 1 - mass) >= thresholds.one_signed:
        verdict = CONVEX if mass > 0.5 else CONCAVE
    else:
        verdict = ANISOTROPIC if anisotropy >= thresholds.anisotropic else MIXED
    return {
        "positive_share": float((values > bound).mean()),
        "negative_share": float((values < -bound).mean()),
        "near_zero_share": float((sizes <= bound).mean()),
        "largest_eigenvalue": float(values[0]),
        "smallest_eigenvalue": float(values[-1]),
        "spectral_radius": radius,
        "trace": float(values.sum()),
        "positive_mass": mass,
        "effective_rank": float(np.exp(-(p * np.log(p)).sum())) if total > 0 else 0.0,
        "anisotropy": anisotropy,
        "relative_curvature": change if math.isfinite(change) else math.nan,
        "verdict": verdict,
    }


def _regions(f: Scalar, x: Tensor, end: Tensor) -> dict[str, Any]:
    """Return where the linear region of ``x`` ends and what happens on the way to ``end``."""
    crossings = regions_along(f, x, end)
    assert crossings.jumps is not None
    return {
        "region_radius": float(region_radius(f.model, x)),
        "regions_crossed": crossings.count,
        "largest_gradient_jump": float(crossings.jumps.max()) if crossings.count else 0.0,
    }


def _checks(f: Scalar, x: Tensor, g: Tensor, curvatures: Tensor, vectors: Tensor) -> dict[str, float]:
    """Check leading eigenpairs ``[k]``, ``[k, d]`` by differences of values and gradients.

    The steps, 1e-3 to 8e-3, keep the third-order error far above float64 rounding and the fourth far below.
    """
    v = vectors.to(x).view(-1, *x.shape)
    slopes, curvatures = (v * g).flatten(1).sum(1), curvatures.to(x)
    steps = 1e-3 * 2.0 ** np.arange(4)
    here = value(f, x[None])
    errors = [value(f, x + h * v) - here - h * slopes - h**2 / 2 * curvatures for h in steps]
    sizes = np.array([float(torch.linalg.vector_norm(error)) for error in errors])
    order = np.polyfit(np.log(steps), np.log(sizes), 1)[0] if (sizes > 0).all() else math.nan
    h = 1e-4
    ahead, behind = gradient(f, torch.stack([x + h * v[0], x - h * v[0]]))
    measured = float(((ahead - behind) * v[0]).sum()) / (2 * h)
    return {"expansion_order": float(order), "curvature_error": abs(measured / float(curvatures[0]) - 1)}


def _eigenvalue_table(spectra: Mapping[str, Mapping[str, np.ndarray]], model_name: str) -> pd.DataFrame:
    """Return the long table of all images' eigenvalues, each spectrum in descending order."""
    import pandas as pd

    ranks = [np.arange(1, 1 + len(arrays["eigenvalues"])) for arrays in spectra.values()]
    columns = {
        "image_id": [i for i, rank in zip(spectra, ranks, strict=True) for _ in rank],
        "model": model_name,
        "rank": np.concatenate([np.zeros(0, int), *ranks]),
        "eigenvalue": np.concatenate([np.zeros(0), *(arrays["eigenvalues"] for arrays in spectra.values())]),
    }
    return EIGENVALUES.validate(pd.DataFrame(columns))


def _stack(found: Mapping[str, Mapping[str, np.ndarray]], images: ImageSet, k: int) -> dict[str, np.ndarray]:
    """Join the images' gradients and leading eigenpairs; an image that failed leaves NaN."""
    n, k = len(images), 2 * min(k, math.prod(images.shape) // 2)
    arrays = {
        "gradient": np.full((n, *images.shape), np.nan),
        "eigenvectors": np.full((n, k, *images.shape), np.nan),
        "extreme_eigenvalues": np.full((n, k), np.nan),
    }
    for position, image_id in enumerate(images.ids):
        if image_id in found:
            arrays["gradient"][position] = found[image_id]["gradient"]
            arrays["eigenvectors"][position] = found[image_id]["eigenvectors"].reshape(k, *images.shape)
            arrays["extreme_eigenvalues"][position] = found[image_id]["extreme_eigenvalues"]
    return arrays
