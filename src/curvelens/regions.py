"""Geometry of piecewise-linear networks: how far linear regions reach and which are crossed.

The Hessian of a ReLU network is zero inside each linear region, so its gradient explanation is constant
there and jumps at the border. Everything here is computed on a float64 copy of the model, and exact up to
its rounding.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from curvelens.chunks import chunk_rows, chunks, run_in_chunks
from curvelens.derivatives import gradient
from curvelens.errors import ArgumentError
from curvelens.targets import Scalar
from curvelens.tracing import TracedNetwork, UnitRecord

_BYTES_PER_UNIT = 64  # value, offset, rate, piece and their temporaries, while a batch is traced
_DIRECTIONS = 256
_WALKERS = 32
_BESIDE = 1e-6  # in t; gradients on the two sides of a crossing are taken at most this far from it


@dataclass(frozen=True, eq=False)
class RegionBorder:
    """The nearest border of a linear region.

    Attributes:
        radius: L2 distance to it, a scalar tensor; infinite when the network has no border.
        module: Name of the ReLU-type module whose unit lies on the border; empty when there is none.
        unit: Flattened index of the unit in that module's pre-activation (for max pooling: of the entry that
            overtakes the largest of its window, in ``[C, entries, windows]``); -1 when there is none.
        direction: Unit vector ``[*shape]`` towards the nearest point of the border; zero when there is none.
    """

    radius: Tensor
    module: str
    unit: int
    direction: Tensor


@dataclass(frozen=True, eq=False)
class Crossings:
    """Where a segment crosses borders of linear regions.

    Attributes:
        t: Positions in (0, 1), ascending ``[m]``, float64.
        units: How many units change their linear piece at each ``[m]``, int64; more than one where borders
            meet.
        jumps: L2 norm of the change of the scalar's gradient at each crossing ``[m]``, float64, in units of
            the scalar per unit of the input; None when only a model was given.
    """

    t: Tensor
    units: Tensor
    jumps: Tensor | None

    @property
    def count(self) -> int:
        """Number of crossings, one less than the number of regions that the segment visits."""
        return len(self.t)


def region_radius(model: nn.Module, x: Tensor) -> Tensor:
    """Return the exact L2 distance from ``x`` to the border of its linear region.

    See :func:`region_border`, which also says where the border is.

    Args:
        model: Network of affine layers and ReLU-type modules; it is left as it was found.
        x: One input ``[*shape]``.

    Returns:
        Scalar tensor in the dtype and on the device of ``x``, >= 0.

    Raises:
        ModelError: If the model is not piecewise linear, or has ReLU-type functions that are no modules.
    """
    return region_border(model, x).radius


def region_border(model: nn.Module, x: Tensor) -> RegionBorder:
    r"""Return the nearest border of the linear region of ``x``.

    The radius is ``min_j |z_j| / ‖∇ₓ z_j‖`` over the pre-activations ``z_j`` (their distances from each
    breakpoint, and for max pooling the lead of the largest entry over each other). It is exact: the closed
    region is the polyhedron cut out by the half-spaces ``±z_j ≥ 0``, with the ``z_j`` continued affinely
    from ``x``; by Cauchy-Schwarz no ``z_j`` changes sign within that radius, and the foot of the
    perpendicular on the nearest hyperplane, lying in the closed ball, satisfies all other inequalities and
    so is a point of the border.

    Units whose gradient is zero (up to rounding) cannot be reached and are left out.
    Where max pooling meets equal entries that depend on different pixels, as in a constant background,
    ``x`` lies on a border and the radius is zero. The pixel range is not taken into account.

    Args:
        model: Network of affine layers and ReLU-type modules; it is left as it was found.
        x: One input ``[*shape]``.

    Returns:
        Radius, unit and direction, in the dtype and on the device of ``x``.

    Raises:
        ModelError: If the model is not piecewise linear, or has ReLU-type functions that are no modules.
    """
    net = TracedNetwork(model, x)
    point = x.detach().double()
    radius, layer, index = torch.inf, -1, -1
    for position, (offset, norm, tolerance) in enumerate(_offsets_and_norms(net, point)):
        distance = torch.where(norm > tolerance, offset.abs() / norm, torch.inf)
        nearest = int(distance.argmin())
        if distance[nearest] < radius:
            radius, layer, index = float(distance[nearest]), position, nearest
    if layer < 0:
        return RegionBorder(x.new_tensor(torch.inf), "", -1, torch.zeros_like(x))
    module, unit, direction = _towards(net, point, layer, index)
    return RegionBorder(x.new_tensor(radius), module, unit, direction.to(x))


def _offsets_and_norms(net: TracedNetwork, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return each layer's offsets and the norms of their gradients, flattened, and its tolerance ``[1]``."""
    records: list[UnitRecord] = []
    squares: list[Tensor] = []

    def work(start: int, stop: int) -> None:
        nonlocal records, squares
        rows = torch.arange(start, stop, device=x.device)
        directions = functional.one_hot(rows, x.numel()).to(x).view(-1, *x.shape)
        records = net.trace(x.unsqueeze(0), directions)
        part = [record.rates.flatten(1).square().sum(0) for record in records]
        squares = [old + new for old, new in zip(squares, part, strict=True)] if squares else part

    run_in_chunks(x.numel(), _rows(net, _DIRECTIONS), work, "distances to borders", x[None])
    return [
        (record.offsets.flatten(), square.sqrt(), record.tolerance)
        for record, square in zip(records, squares, strict=True)
    ]


def _rows(net: TracedNetwork, most: int) -> int:
    return chunk_rows(_BYTES_PER_UNIT * net.units, max_rows=most)


def _towards(net: TracedNetwork, x: Tensor, layer: int, index: int) -> tuple[str, int, Tensor]:
    """Return the module, the unit and the unit vector that lead to the border at one of a layer's offsets."""
    leaf = x.clone().requires_grad_(True)
    with torch.enable_grad():
        record = net.offsets(leaf.unsqueeze(0))[layer]
        offset = record.offsets[0].flatten()[index]
        (normal,) = torch.autograd.grad(offset, leaf)
    sign = -1.0 if offset > 0 else 1.0
    unit = index % math.prod(record.offsets.shape[2:])
    return record.module, unit, sign * normal / torch.linalg.vector_norm(normal)


def regions_along(f_or_model: Scalar | nn.Module, a: Tensor, b: Tensor) -> Crossings:
    """Return every border of a linear region that the segment from ``a`` to ``b`` crosses.

    Within a region every pre-activation is affine in t, so the next crossing is the smallest zero ahead;
    there the region that the segment enters follows from one-sided derivatives, which also settles borders
    that meet in one point, and the walk goes on. Borders that are touched but not crossed do not count, and
    crossings closer in t than about 1e-12 count as one.

    Args:
        f_or_model: A scalar of a piecewise-linear network (:mod:`curvelens.targets`), or the network itself.
            All of the network's units count, also those that the scalar does not depend on. The gradients on
            the two sides of a crossing are taken within 1e-6 of it in t.
        a: Start ``[*shape]``, t = 0.
        b: End ``[*shape]``, t = 1.

    Returns:
        Positions, numbers of units and, for a scalar, gradient jumps.

    Raises:
        ModelError: If the model is not piecewise linear, or has ReLU-type functions that are no modules.
        ArgumentError: If ``a`` and ``b`` differ in shape or are equal, or the function has no model.
    """
    if not isinstance(f_or_model, Scalar | nn.Module):
        raise ArgumentError(
            f"regions_along: {f_or_model!r} has no model; give a model or a scalar made by curvelens.targets"
        )
    scalar = f_or_model if isinstance(f_or_model, Scalar) else None
    model = f_or_model if isinstance(f_or_model, nn.Module) else f_or_model.model
    if a.shape != b.shape:
        raise ArgumentError(
            f"regions_along: a is {list(a.shape)} and b is {list(b.shape)}; give two inputs of the same shape"
        )
    start, direction = a.detach().double(), b.detach().double() - a.detach().double()
    if not direction.any():
        raise ArgumentError("regions_along: a and b are the same point; give two different inputs")
    t, units = _walk(TracedNetwork(model, a), start, direction)
    jumps = None if scalar is None else _jumps(scalar, start, direction, t)
    return Crossings(t, units, jumps)


def _walk(net: TracedNetwork, a: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Walk from t = 0 to 1, many stretches at once; return crossings and how many units change at each."""
    if net.units == 0:
        return a.new_empty(0), torch.empty(0, dtype=torch.int64, device=a.device)
    walkers = _rows(net, _WALKERS)
    numbers = torch.arange(walkers, device=a.device)
    starts, ends = numbers.to(a) / walkers, (numbers + 1).to(a) / walkers
    t, active = starts.clone(), numbers
    first = last = torch.empty(0)
    crossings: list[Tensor] = []
    units: list[Tensor] = []
    while len(active):
        here = t[active]
        pieces, step = _ahead(net, a, direction, here)
        if not crossings:
            first, last = pieces, pieces.clone()
        changed = (pieces != last[active]).sum(1)
        crossings.append(here[changed > 0])
        units.append(changed[changed > 0])
        last[active] = pieces
        t[active] = torch.maximum(here + step, torch.nextafter(here, torch.ones_like(here)))
        active = active[t[active] < ends[active]]
    # A border exactly where one stretch ends and the next begins shows only in the comparison of the two.
    changed = (first[1:] != last[:-1]).sum(1)
    found = torch.cat([*crossings, starts[1:][changed > 0]])
    order = found.argsort()
    return found[order], torch.cat([*units, changed[changed > 0]])[order]


def _points(a: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """Return the points ``[n, *shape]`` of the segment at ``t[n]``."""
    return a + t.view(-1, *[1] * a.ndim) * direction


def _ahead(net: TracedNetwork, a: Tensor, direction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pieces ``[n, units]`` that the points at ``t[n]`` enter, and how far these reach ``[n]``."""
    found: list[tuple[Tensor, Tensor]] = []

    def work(start: int, stop: int) -> None:
        found.append(_ahead_of(net, _points(a, direction, t[start:stop]), direction))

    run_in_chunks(len(t), len(t), work, "linear regions", a[None])
    pieces, steps = zip(*found, strict=True)
    return torch.cat(pieces), torch.cat(steps)


def _ahead_of(net: TracedNetwork, points: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same for points ``[n, *shape]`` that fit in memory together."""
    length = torch.linalg.vector_norm(direction)
    records = net.trace(points, (direction / length).expand_as(points))
    step = points.new_full((len(points),), torch.inf)
    for record in records:
        offsets, rates = record.offsets.flatten(1), record.rates.flatten(1)
        bound = record.tolerance.unsqueeze(1)
        approaching = (offsets.abs() > bound) & (rates.abs() > bound) & (offsets * rates < 0)
        time = torch.where(approaching, offsets.abs() / rates.abs(), torch.inf)
        step = torch.minimum(step, time.amin(1) / length)
    return torch.cat([record.pieces.flatten(1) for record in records], dim=1), step


def _jumps(f: Scalar, a: Tensor, direction: Tensor, t: Tensor) -> Tensor:
    """Return the norm of the change of the gradient of ``f`` at each crossing ``[m]``."""
    f = replace(f, model=copy.deepcopy(f.model).double())
    before = torch.cat([t.new_zeros(1), t])[:-1]
    after = torch.cat([t, t.new_ones(1)])[1:]
    low = t - ((t - before) / 2).clamp(max=_BESIDE)
    high = t + ((after - t) / 2).clamp(max=_BESIDE)
    jumps = torch.empty_like(t)
    for start, stop in chunks(len(t), chunk_rows(16 * a.numel())):
        part = slice(start, stop)
        change = gradient(f, _points(a, direction, high[part])) - gradient(
            f, _points(a, direction, low[part])
        )
        jumps[part] = torch.linalg.vector_norm(change.flatten(1), dim=1)
    return jumps
