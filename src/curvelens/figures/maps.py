"""How a map becomes a picture: one post-processing for all methods, in figures and in the gallery."""

from __future__ import annotations

import numpy as np

QUANTILE = 0.99
SIGNED, MAGNITUDE = "RdBu_r", "Purples"

NAMES = {
    "gradient": "gradient",
    "smoothgrad": "SmoothGrad",
    "vargrad": "VarGrad",
    "smoothhess": "SmoothHess",
    "integrated_gradients": "Integrated Gradients",
    "cafo": "CAFO",
    "caso": "CASO",
    "smoothcafo": "SmoothCAFO",
    "smoothcaso": "SmoothCASO",
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "lime": "LIME",
    "occlusion": "occlusion",
}

PROCESSING = (
    f"Post-processing, the same for all: channels summed, each map capped at the {QUANTILE:.0%} quantile of "
    "its magnitudes and scaled by that cap; no smoothing, no multiplication by the image."
)


def ordered(methods: list[str]) -> list[str]:
    """Return the names of methods, the known ones first and always in the same order."""
    return [name for name in NAMES if name in methods] + sorted(set(methods) - set(NAMES))


def is_signed(method: str, values: np.ndarray) -> bool:
    """Return whether the sign of a method's map means something; of unknown methods the values decide."""
    from curvelens.methods import REGISTRY

    if method in REGISTRY:
        return bool(REGISTRY.get(method).traits["signed"])
    return bool((values < 0).any())


def cap(values: np.ndarray) -> float:
    """Return the magnitude at which a map ``[H, W]`` is capped, > 0."""
    return float(np.quantile(np.abs(values), QUANTILE)) or float(np.abs(values).max()) or 1.0


def scaled(values: np.ndarray, signed: bool, largest: float | None = None) -> np.ndarray:
    """Return the place of each value on its colour scale, in [0, 1]; a signed scale has zero at ½.

    Args:
        values: A map ``[H, W]``.
        signed: Whether its sign means something.
        largest: Magnitude at the end of the scale, > 0; None takes :func:`cap`.
    """
    shares = np.clip(values / (largest or cap(values)), -1 if signed else 0, 1)
    return (shares + 1) / 2 if signed else shares
