"""Random changes of training images: cut-outs, flips, colours, grey. A batch at once, each in its own way.

The operations and their random numbers are those of torchvision's ``RandomHorizontalFlip``, ``ColorJitter``
(its four changes in random order) and ``RandomGrayscale``, one after another.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from curvelens.errors import DataError
from curvelens.schedules import Augmentation

_GREY = (0.2989, 0.587, 0.114)  # luma of R, G and B (ITU-R BT.601)


def augment(images: Tensor, parameters: Augmentation) -> Tensor:
    """Change a batch of images at random, by numbers from torch's generator of the CPU.

    Args:
        images: ``[B, C, H, W]``, pixels in [0, 1].
        parameters: Probabilities and sizes of the changes.

    Returns:
        ``[B, C, H, W]``, pixels in [0, 1]; ``images`` stays as it was.

    Raises:
        DataError: A change of colours is asked for and the images are not RGB.
    """
    coloured = max(parameters.saturation, parameters.hue, parameters.grayscale) > 0
    if coloured and images.shape[1] != 3:
        raise DataError(
            f"augmentation: images of {images.shape[1]} channels have no colours; "
            "leave out saturation, hue and grayscale"
        )
    images = _cut_out(images, parameters.crop) if parameters.crop < 1 else images.clone()
    chances = torch.rand(3, len(images))
    flipped, jittered, grey = (
        torch.nonzero(chance < bound)[:, 0].to(images.device)
        for chance, bound in zip(
            chances, (parameters.flip, parameters.jitter, parameters.grayscale), strict=True
        )
    )
    images[flipped] = images[flipped].flip(-1)
    images[jittered] = _jitter(images[jittered], parameters)
    if len(grey):
        images[grey] = _grey(images[grey]).expand(-1, 3, -1, -1)
    return images


def _cut_out(images: Tensor, smallest: float) -> Tensor:
    """Cut a random part of each image, of its shape and of at least that share of its area, and scale it up.

    As torchvision's ``RandomResizedCrop`` without a change of the aspect ratio: area and place are uniform.
    """
    numbers = torch.rand(3, len(images)).to(images)
    side = (smallest + (1 - smallest) * numbers[0]).sqrt()
    shift = (1 - side) * (2 * numbers[1:] - 1)
    zero = torch.zeros_like(side)
    rows = [torch.stack([side, zero, shift[0]], 1), torch.stack([zero, side, shift[1]], 1)]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False).clamp(0, 1)


def _jitter(images: Tensor, parameters: Augmentation) -> Tensor:
    """Apply the four changes in an order of each image's own."""
    count = len(images)
    uniform = (2 * torch.rand(4, count) - 1).to(images)
    order = torch.rand(4, count).argsort(0)
    changes: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = [
        (brightness, 1 + parameters.brightness * uniform[0]),
        (contrast, 1 + parameters.contrast * uniform[1]),
        (saturation, 1 + parameters.saturation * uniform[2]),
        (hue, parameters.hue * uniform[3]),
    ]
    sizes = (parameters.brightness, parameters.contrast, parameters.saturation, parameters.hue)
    for place in range(4):
        for number, (change, amounts) in enumerate(changes):
            at = torch.nonzero(order[place] == number)[:, 0].to(images.device)
            if sizes[number] and len(at):
                images[at] = change(images[at], amounts[at])
    return images


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Return ``images [B, C, H, W]`` times ``factors [B]``, clipped to [0, 1]."""
    return (images * _each(factors)).clamp(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Return ``images [B, C, H, W]`` blended with their mean grey by ``factors [B]``, clipped to [0, 1]."""
    grey = _grey(images) if images.shape[1] == 3 else images
    return _blend(images, grey.mean((1, 2, 3), keepdim=True), factors)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Return ``images [B, 3, H, W]`` blended with their greys by ``factors [B]``, clipped to [0, 1]."""
    return _blend(images, _grey(images), factors)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """Return ``images [B, 3, H, W]`` with the hue turned by ``turns [B]`` of a full circle.

    By way of hue, saturation and value (Smith 1978).
    """
    red, green, blue = images.unbind(1)
    value, _ = images.max(1)
    chroma = value - images.min(1).values
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sector = sector + 6 * turns.reshape(-1, 1, 1)
    channels = []
    for offset in (5, 3, 1):
        at = torch.remainder(offset + sector, 6)
        channels.append(value - chroma * torch.minimum(at, 4 - at).clamp(0, 1))
    return torch.stack(channels, 1)


def _grey(images: Tensor) -> Tensor:
    weights = images.new_tensor(_GREY).reshape(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factors: Tensor) -> Tensor:
    amount = _each(factors)
    return (amount * images + (1 - amount) * other).clamp(0, 1)


def _each(numbers: Tensor) -> Tensor:
    return numbers.reshape(-1, 1, 1, 1)
