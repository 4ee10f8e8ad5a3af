"""Attribution methods. A method is added by one new file in this folder that registers itself.

A method is a function ``(f, x, seed, parameters) -> Explanation`` of one image: ``f`` maps a batch to
scalars, ``x[*shape]`` lies in [0, 1], ``seed`` is the image's own, and ``parameters`` is an instance of the
model registered with it.

A method registered with ``copies=True`` looks at the gradient at noisy copies of the image. Its parameters
extend :class:`NoisyCopies`, and it is given the copies' gradients as a fifth argument: methods whose copies
are the same share the gradient calls, see :class:`SharedWork`. With ``curvature=True`` they come with
SmoothHess.

Methods that share other work are registered with ``shares=make``, a function ``(f, x, seed, parameters) ->
Work``, and are given a fork of the work as a fifth argument; it is made once for all whose parameters agree
in ``shared``, a property of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, Field

from curvelens.registry import Entry, Parameters, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from curvelens.quadratic import LocalQuadratic
    from curvelens.smoothing import GradientMoments
    from curvelens.targets import Scalar

REGISTRY = Registry("explanation method", "curvelens.methods")


class NoisyCopies(Parameters):
    """How the image is perturbed."""

    sigma: float = Field(0.15, gt=0, description="Standard deviation of the noise, in units of pixel value.")
    samples: int = Field(64, ge=4, description="Noisy copies in pairs x ± noise, each one gradient call.")


@dataclass(frozen=True)
class Copies:
    """Gradients at noisy copies of an image, and what follows from them.

    Attributes:
        moments: Their mean and variance, and the calls made.
        model: The local model of SmoothHess and SmoothGrad from the same calls; None where no method asked
            for curvature.
    """

    moments: GradientMoments
    model: LocalQuadratic | None = None


class Work(Protocol):
    """Work on an image that several methods start from."""

    @property
    def calls(self) -> int:
        """Gradient calls made so far."""

    def fork(self) -> Work:
        """Return the work as it stands: what one method adds to a fork changes no other."""


@dataclass(frozen=True)
class Explanation:
    """What a method says of one image.

    Attributes:
        maps: Named arrays, each ``[*shape]``; ``"attribution"`` is always among them.
        calls: Gradient calls that it rests on.
        model: The local model of ``f`` that the map belongs to, None where the map predicts no change of
            ``f``.
        made: Gradient calls made for it; fewer than ``calls`` where other explanations of the image use them
            too, None where it shares none.
        forward_calls: Evaluations of ``f`` without a gradient that it rests on.
    """

    maps: dict[str, Tensor]
    calls: int
    model: LocalQuadratic | None = None
    made: int | None = None
    forward_calls: int = 0


class SharedWork:
    """Explanations of one image by several methods, in which each gradient call is made once.

    Methods that look at noisy copies with the same σ and number share the copies, because they depend on the
    image's seed alone; so do methods registered with the same ``shares``. What a method yields does not
    depend on which others there are.

    Args:
        f: Scalar function of a batch, ``[B, *shape] -> [B]``.
        x: The image, ``[*shape]``, values in [0, 1].
        seed: Seed of this image.
        methods: Parsed parameters by method, of all methods that will be asked for.

    Raises:
        ConfigError: If a method does not exist.
    """

    def __init__(self, f: Scalar, x: Tensor, seed: int, methods: Mapping[str, BaseModel]) -> None:
        self.f, self.x, self.seed, self.methods = f, x, seed, methods
        entries = [REGISTRY.get(name) for name in methods]
        self._curved = {_copies(methods[entry.name]) for entry in entries if entry.traits.get("curvature")}
        self._known: dict[tuple[float, int], Copies] = {}
        self._works: dict[Any, Work] = {}

    def explain(self, name: str) -> Explanation:
        """Explain the image by one of the methods; the first to need them makes the copies' gradients.

        Args:
            name: A key of ``methods``.
        """
        entry, parameters = REGISTRY.get(name), self.methods[name]
        if entry.traits.get("shares"):
            return self._from_work(entry, parameters)
        if not entry.traits.get("copies"):
            found: Explanation = entry.function(self.f, self.x, self.seed, parameters)
            return found if found.made is not None else replace(found, made=found.calls)
        key = _copies(parameters)
        new = key not in self._known
        if new:
            self._known[key] = self._look(*key)
        copies = self._known[key]
        explained: Explanation = entry.function(self.f, self.x, self.seed, parameters, copies)
        return replace(explained, made=explained.calls if new else explained.calls - copies.moments.calls)

    def _from_work(self, entry: Entry, parameters: Any) -> Explanation:
        make = entry.traits["shares"]
        key = make, parameters.shared
        new = key not in self._works
        if new:
            self._works[key] = make(self.f, self.x, self.seed, parameters)
        work = self._works[key].fork()
        before = work.calls
        found: Explanation = entry.function(self.f, self.x, self.seed, parameters, work)
        return replace(found, made=found.calls if new else found.calls - before)

    def _look(self, sigma: float, samples: int) -> Copies:
        from curvelens.methods._noise import noisy_copies

        curvature = (sigma, samples) in self._curved
        return noisy_copies(self.f, self.x, self.seed, sigma, samples, curvature)


def _copies(parameters: BaseModel) -> tuple[float, int]:
    """Return σ and number of the noisy copies that a method looks at."""
    assert isinstance(parameters, NoisyCopies)
    return parameters.sigma, parameters.samples


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
    return SharedWork(f, x, seed, {name: REGISTRY.get(name).parse(parameters)}).explain(name)
