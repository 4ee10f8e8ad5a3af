"""Networks that were exported: ``torch.export`` programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.models import REGISTRY
from curvelens.models._preprocessing import (
    Preprocessing,
    in_order,
    network_shape,
    output_count,
    prepared,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)


class ExportedParameters(Preprocessing):
    """Parameters of :func:`exported`; the file is named by ``weights`` beside them."""


def read(
    parameters: ExportedParameters, classes: int, image_shape: tuple[int, int, int], path: Path
) -> torch.nn.Module:
    """Make the network of a file: one that ``torch.export.save`` wrote, or one that this library stored.

    Nothing of the file is run but operations on a fixed list.

    Args:
        parameters: See :class:`ExportedParameters`.
        classes: Number of logits.
        image_shape: (C, H, W).
        path: The file.

    Returns:
        ``torch.nn.Sequential`` that ends in ``normalise`` and ``network``, ``[B, C, H, W] -> [B, classes]``.

    Raises:
        DataError: The file is something else, is damaged, or brings code.
        ModelError: The program has operations that are not known, or takes other images.
    """
    import zipfile

    from curvelens.errors import ModelError
    from curvelens.models._storage import load_weights

    try:
        if zipfile.is_zipfile(path):
            recipe, network = _from_archive(path)
        else:
            recipe, network = _from_stored(path)
        _require_shape(recipe, network_shape(parameters, image_shape))
        output_count(parameters, classes)  # refuses too many or too few
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    model = prepared(network, parameters, image_shape)
    model.__dict__["program"] = json.dumps(recipe, separators=(",", ":"))  # kept by copies; see save_weights
    if not zipfile.is_zipfile(path):
        load_weights(model, path)
    return model


@REGISTRY.register(
    "exported",
    parameters=ExportedParameters,
    reference="PyTorch contributors 2022, torch.export",
    needs_weights="the file that torch.export.save wrote",
    fitted=in_order,
    read=read,
)
def exported(
    parameters: ExportedParameters, classes: int, image_shape: tuple[int, int, int]
) -> torch.nn.Module:
    """Network that `torch.export.save` wrote, architecture and weights together (`weights: model.pt2`).

    Nothing in the file can run code: it is not read by `torch.export.load`, which unpickles, and only known
    operations are made of it. Layers and activations become modules again.

    Args:
        parameters: See :class:`ExportedParameters`.
        classes: Number of logits.
        image_shape: (C, H, W).

    Raises:
        ModelError: Always: such a network is in its file, and is made by ``curvelens.models.restore``.
    """
    from curvelens.errors import ModelError

    raise ModelError("exported: the network is in its file; name it with `weights`, or use models.restore")


def _from_archive(path: Path) -> tuple[dict[str, Any], nn.Module]:
    from curvelens.errors import DataError, ModelError
    from curvelens.models._archive import read_archive
    from curvelens.models._making import made
    from curvelens.models._recipe import recipe as recipe_of
    from curvelens.models._recipe import with_open_batch

    archive = read_archive(path)
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in archive.tensors.items()
    }
    try:
        recipe = recipe_of(archive.graph)
    except ModelError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged, or not as torch writes it ({type(error).__name__}: {error}); export it again"
        ) from error
    recipe["sizes"] = {name: [list(one.shape), str(one.dtype)[6:]] for name, one in tensors.items()}
    if (batch := recipe["batch"]) is not None:
        open_recipe = with_open_batch(recipe)
        if _is_same(open_recipe, recipe, tensors):
            recipe = open_recipe
        else:
            logger.warning(
                "%s: was exported for exactly %d images at a time, and is run so: it takes long, and nothing "
                "is known of its linearity; export it with dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)",
                path,
                batch,
            )
    return recipe, _whole(recipe, made(recipe, tensors))


def _from_stored(path: Path) -> tuple[dict[str, Any], nn.Module]:
    import safetensors
    import torch

    from curvelens.errors import DataError
    from curvelens.models._making import made

    try:
        with safetensors.safe_open(path, "pt") as file:
            recipe = json.loads((file.metadata() or {})["program"])
        sizes = {name: (shape, getattr(torch, dtype)) for name, (shape, dtype) in recipe["sizes"].items()}
        empty = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in sizes.items()}
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: is neither an exported program nor one stored by curvelens ({type(error).__name__}); "
            "give a file that torch.export.save wrote"
        ) from error
    return recipe, _whole(recipe, made(recipe, empty))


def _whole(recipe: Mapping[str, Any], network: nn.Module) -> nn.Module:
    from curvelens.models._program import Blocks

    return network if recipe["batch"] is None else Blocks(network, recipe["batch"]).eval()


def _is_same(
    open_recipe: Mapping[str, Any], recipe: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> bool:
    """Whether a recipe gives for any number of images what it gives for those it was made for, by trying."""
    import torch

    from curvelens.models._making import made
    from curvelens.models._program import Blocks

    batch = recipe["batch"]
    shape = [size or 32 for size in recipe["shape"]]
    x = torch.rand(2 * batch + 1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        in_blocks = Blocks(made(recipe, tensors), batch)(x)
        try:
            together = made(open_recipe, tensors)(x)
        except RuntimeError:  # a size that follows from the number of images stands in the program
            return False
    same = together.shape == in_blocks.shape
    return same and torch.allclose(together, in_blocks, rtol=1e-3, atol=1e-4)


def _require_shape(recipe: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
    from curvelens.errors import ModelError

    wanted = recipe["shape"]
    if all(size in (None, own) for size, own in zip(wanted, shape, strict=True)):
        return
    remedies = []
    if wanted[0] not in (None, shape[0]):
        remedies.append(f"parameters.channels: {wanted[0]}")
    if any(size not in (None, own) for size, own in zip(wanted[1:], shape[1:], strict=True)):
        remedies.append(
            f"parameters.resize: {[size or own for size, own in zip(wanted, shape, strict=True)][1:]}"
        )
    raise ModelError(
        f"the program was exported for images {wanted}, and gets {list(shape)}; give "
        f"{' and '.join(remedies)}, or export it for images of this size"
    )
