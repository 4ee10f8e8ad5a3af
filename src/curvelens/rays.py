"""Values of scalars along rays x + s·u, many lengths s on each direction u.

Where a model is a chain that begins with affine layers A, ``A(x + s u) = A(x) + s (A(u) − A(0))``: they run
once for all lengths. In a multilayer perceptron that is the widest matrix product of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from curvelens import derivatives
from curvelens.chain import layer_chain
from curvelens.chunks import run_in_chunks
from curvelens.forward import evaluation_mode, read_outputs
from curvelens.targets import Function, Scalar

_AFFINE = (nn.Linear, nn.Flatten, nn.Identity, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ROWS = 1024  # run through the rest of the model at once


class Rays:
    """Scalars on the rays from one point.

    Args:
        functions: Scalars, ``[B, *shape] -> [B]`` each, at least one.
        x: ``[*shape]``, the point.
        chunk: Rows evaluated at once; ``None`` chooses by memory.
    """

    def __init__(self, functions: Sequence[Function], x: Tensor, chunk: int | None = None) -> None:
        self.functions, self.x, self.chunk = list(functions), x, chunk
        self._split = _affine_beginning(self.functions, x)

    def values(self, directions: Tensor, lengths: Sequence[Tensor]) -> list[Tensor]:
        """Return the scalars' values at x + s·u.

        Args:
            directions: u, ``[b, *shape]``.
            lengths: s, ``[b]`` each.

        Returns:
            For each of the lengths ``[len(functions), b]``.
        """
        scales = [s.to(self.x.dtype) for s in lengths]
        if self._split is None:
            shape = (-1, *[1] * self.x.ndim)
            points = (self.x + directions * s.reshape(shape) for s in scales)
            return [derivatives.values(self.functions, z, self.chunk) for z in points]
        beginning, rest, readers = self._split
        found = [self.x.new_empty(len(self.functions), len(directions)) for _ in scales]
        with torch.no_grad(), evaluation_mode(beginning), evaluation_mode(rest):
            origin, start = beginning(torch.stack([torch.zeros_like(self.x), self.x]))

            def work(first: int, last: int) -> None:
                step = beginning(directions[first:last]) - origin
                for s, values in zip(scales, found, strict=True):
                    z = start + step * s[first:last].reshape(-1, *[1] * start.ndim)
                    values[:, first:last] = torch.stack(read_outputs(rest, readers, z))

            rows = _ROWS if self.chunk is None else self.chunk
            run_in_chunks(len(directions), rows, work, "values along rays", directions)
        return found


def _affine_beginning(
    functions: Sequence[Function], x: Tensor
) -> tuple[nn.Module, nn.Module, list[tuple[str | None, Function]]] | None:
    """Return a model's affine beginning, its rest, and how the scalars are read from that.

    None where there is no such beginning, it makes more numbers than x has, or a scalar is read from it.
    """
    scalars = [f for f in functions if isinstance(f, Scalar) and not any(map(torch.is_tensor, f.indices))]
    if len(scalars) != len(functions) or len({id(f.model) for f in scalars}) != 1:
        return None
    layers = layer_chain(scalars[0].model)
    if layers is None:
        return None
    count = next((i for i, layer in enumerate(layers) if not _is_affine(layer)), len(layers))
    beginning, rest = nn.Sequential(*layers[:count]), nn.Sequential(*layers[count:])
    readers: list[tuple[str | None, Function]] = []
    for f in scalars:
        read = None if f.module is None else f.model.get_submodule(f.module)
        places = [str(i) for i, layer in enumerate(rest) if layer is read]
        if read is not None and not places:
            return None
        readers.append((places[0] if places else None, f.apply_head))
    with torch.no_grad(), evaluation_mode(beginning):
        size = beginning(x[None]).numel()
    return (beginning, rest, readers) if count and size <= x.numel() else None


def _is_affine(layer: nn.Module) -> bool:
    return type(layer) in _AFFINE or getattr(layer, "is_affine", False) is True
