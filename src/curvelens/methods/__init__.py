"""Attribution methods. A method is added by one new file in this folder that registers itself.

A method is a function ``(f, x, seed, parameters) -> Explanation`` of one image: ``f`` maps a batch to
scalars, ``x[*shape]`` lies in [0, 1], ``seed`` is the image's own, and ``parameters`` is an instance of the
model registered with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curvelens.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.targets import Scalar

REGISTRY = Registry("explanation method", "curvelens.methods")


@dataclass(frozen=True)
class Explanation:
    """What a method says of one image.

    Attributes:
        maps: Named arrays, each ``[*shape]``; ``"attribution"`` is always among them.
        calls: Gradient calls that were made.
    """

    maps: dict[str, Tensor]
    calls: int


def explain(
    name: str, f: Scalar, x: Tensor, seed: int = 0, parameters: Mapping[str, Any] | None = None
) -> Explanation:
    """Explain ``f`` at one image by a registered method.

    Args:
        name: A name in :data:`REGISTRY`, e.g. ``"smoothgrad"``.
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``, values in [0, 1].
        seed: Seed of this image and method.
        parameters: Values for the method's parameters; the rest take their defaults.

    Returns:
        The method's maps, each with the shape, dtype and device of ``x``, and its gradient calls.

    Raises:
        ConfigError: If the method or a parameter does not exist or has an impossible value.
    """
    entry = REGISTRY.get(name)
    result: Explanation = entry.function(f, x, seed, entry.parse(parameters))
    return result
