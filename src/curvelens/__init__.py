"""curvelens: how far can you trust a saliency map, and what does curvature add?

The public names below are loaded on first use, so that ``import curvelens`` costs milliseconds and the
workflow can validate its configuration without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("curvelens")
except PackageNotFoundError:  # used from a source tree that was never installed
    __version__ = "0+unknown"

_MODULES = ("attr", "targets")
_NAMES = {
    "value": "derivatives",
    "gradient": "derivatives",
    "hvp": "derivatives",
    "hessian": "derivatives",
    "hessians": "derivatives",
    "softplus_surrogate": "surrogates",
    "swish_surrogate": "surrogates",
    "LocalQuadratic": "quadratic",
    "smooth_quadratic": "smoothing",
    "softmax_hessian": "softmax_curvature",
    "region_radius": "regions",
    "regions_along": "regions",
    "cafo": "context_aware",
    "caso": "context_aware",
    "perturbation_mse": "fidelity",
    "trust_radius": "trust",
    "CurvelensError": "errors",
}

__all__ = [*_MODULES, *_NAMES, "__version__"]

if TYPE_CHECKING:
    from curvelens import attr as attr
    from curvelens import targets as targets
    from curvelens.context_aware import cafo as cafo
    from curvelens.context_aware import caso as caso
    from curvelens.derivatives import gradient as gradient
    from curvelens.derivatives import hessian as hessian
    from curvelens.derivatives import hessians as hessians
    from curvelens.derivatives import hvp as hvp
    from curvelens.derivatives import value as value
    from curvelens.errors import CurvelensError as CurvelensError
    from curvelens.fidelity import perturbation_mse as perturbation_mse
    from curvelens.quadratic import LocalQuadratic as LocalQuadratic
    from curvelens.regions import region_radius as region_radius
    from curvelens.regions import regions_along as regions_along
    from curvelens.smoothing import smooth_quadratic as smooth_quadratic
    from curvelens.softmax_curvature import softmax_hessian as softmax_hessian
    from curvelens.surrogates import softplus_surrogate as softplus_surrogate
    from curvelens.surrogates import swish_surrogate as swish_surrogate
    from curvelens.trust import trust_radius as trust_radius


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"curvelens.{name}")
    if name in _NAMES:
        return getattr(import_module(f"curvelens.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'curvelens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
