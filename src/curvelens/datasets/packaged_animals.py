"""Cats and dogs among the pictures that ship inside installed packages, alone and put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from curvelens.datasets import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from curvelens.datasets import RawDataset

_CAT, _DOG, _NEITHER = 0, 1, -1
_IMAGENET = "sample of ImageNet as shipped in foolbox by J. Rauber and others (MIT); terms of ImageNet"
_CIFAR = (
    "32 x 32 pixels, sample of CIFAR-10 (Krizhevsky 2009, no stated licence) as shipped in foolbox by "
    "J. Rauber and others (MIT)"
)


class Animal(NamedTuple):
    """A picture inside a package.

    Attributes:
        package: Name under which the package is imported.
        path: Where it lies there.
        label: 0 for a cat, 1 for a dog.
        origin: What it shows, where it comes from and under which terms.
    """

    package: str
    path: str
    label: int
    origin: str


class Tile(NamedTuple):
    """One animal's part of a montage.

    Attributes:
        animal: Its id.
        left, top, right, bottom: Its part, as shares of the width and height.
        across, down: Middle of what is cut out of the animal's picture, as shares of the cut's freedom.
    """

    animal: str
    left: float
    top: float
    right: float
    bottom: float
    across: float = 0.5
    down: float = 0.5


class Montage(NamedTuple):
    """Several animals on one picture.

    Attributes:
        label: The class that has the larger part; -1 where none has.
        told: What it shows.
        tiles: Its parts.
    """

    label: int
    told: str
    tiles: tuple[Tile, ...]


ANIMALS = {
    "skimage/chelsea": Animal(
        "skimage", "data/chelsea.png", _CAT, "Chelsea the cat, by Stefan van der Walt; CC0"
    ),
    "foolbox/mastiff": Animal("foolbox", "data/imagenet_00_243.jpg", _DOG, f"A bull mastiff, {_IMAGENET}"),
    "foolbox/dalmatian": Animal("foolbox", "data/imagenet_16_251.jpg", _DOG, f"A dalmatian, {_IMAGENET}"),
    "foolbox/lying_cat": Animal("foolbox", "data/cifar10_00_3.png", _CAT, f"A cat lying, {_CIFAR}"),
    "foolbox/sitting_cat": Animal("foolbox", "data/cifar10_08_3.png", _CAT, f"A cat sitting, {_CIFAR}"),
    "foolbox/standing_dog": Animal("foolbox", "data/cifar10_12_5.png", _DOG, f"A dog standing, {_CIFAR}"),
    "foolbox/puppy": Animal("foolbox", "data/cifar10_16_5.png", _DOG, f"A puppy, {_CIFAR}"),
}
MONTAGES = {
    "montage/cat_above_dog": Montage(
        _NEITHER,
        "a cat above a dog, in equal parts",
        (
            Tile("skimage/chelsea", 0, 0, 1, 0.5, 0.5, 0.45),
            Tile("foolbox/dalmatian", 0, 0.5, 1, 1, 0.5, 0.45),
        ),
    ),
    "montage/dog_beside_cat": Montage(
        _DOG,
        "a dog beside a cat",
        (
            Tile("foolbox/mastiff", 0, 0, 0.55, 1, 0.25, 0.5),
            Tile("foolbox/sitting_cat", 0.55, 0, 1, 1, 0.4, 0.5),
        ),
    ),
    "montage/two_dogs": Montage(
        _DOG,
        "two dogs",
        (
            Tile("foolbox/mastiff", 0, 0, 0.5, 1, 0.25, 0.5),
            Tile("foolbox/dalmatian", 0.5, 0, 1, 1, 0.35, 0.5),
        ),
    ),
    "montage/two_of_each": Montage(
        _NEITHER,
        "two cats and two dogs, in equal parts",
        (
            Tile("skimage/chelsea", 0, 0, 0.5, 0.5, 0.35, 0.5),
            Tile("foolbox/mastiff", 0.5, 0, 1, 0.5, 0.5, 0.5),
            Tile("foolbox/puppy", 0, 0.5, 0.5, 1),
            Tile("foolbox/sitting_cat", 0.5, 0.5, 1, 1),
        ),
    ),
}


class PackagedAnimalsParameters(Parameters):
    """Parameters of :func:`load`."""

    size: int = Field(224, ge=32, le=300, description="Height and width to which pictures are scaled.")


@REGISTRY.register(
    "packaged_animals",
    parameters=PackagedAnimalsParameters,
    reference="van der Walt et al. 2014, scikit-image; Rauber et al. 2020, foolbox; Krizhevsky 2009; "
    "Russakovsky et al. 2015",
    images=11,
    classes=2,
    image_shape=(3, 224, 224),
    official_test=False,
    trainable=False,
)
def load(parameters: PackagedAnimalsParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """All 3 cats and 4 dogs that ship inside scikit-image and foolbox, and 4 montages of them.

    None of these pictures shows a cat and a dog together. The montages do: two or four of the pictures, cut
    to fill a part of the square each. They show several animals and no real scene, and their origin says so.
    4 of the 7 single pictures have 32 x 32 pixels and are hard for a network that was trained on large ones.

    Args:
        parameters: See :class:`PackagedAnimalsParameters`.
        data_dir: Not used.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        The single pictures, then the montages; there are no training images.

    Raises:
        DataError: A package is missing, or holds other files.
    """
    import numpy as np

    from curvelens.datasets import RawDataset, content_sha256
    from curvelens.datasets._photographs import packaged_picture, read_picture

    files = {name: packaged_picture(one.package, one.path) for name, one in ANIMALS.items()}
    single = [read_picture(file, parameters.size) for file in files.values()]
    put_together = [_montage(one, files, parameters.size) for one in MONTAGES.values()]
    images = np.stack([*single, *put_together])
    labels = np.array(
        [*(one.label for one in ANIMALS.values()), *(one.label for one in MONTAGES.values())], dtype=np.int64
    )
    origins = {name: one.origin for name, one in ANIMALS.items()}
    origins |= {name: _origin(one) for name, one in MONTAGES.items()}
    return RawDataset(
        images=images,
        labels=labels,
        ids=list(origins),
        class_names=["cat", "dog"],
        source="the cats and dogs among the pictures in scikit-image and foolbox, and montages of them",
        licence="of each picture its own, see origins in dataset.json",
        sha256={"images and labels": content_sha256(images, labels)},
        trainable=False,
        origins=origins,
    )


def _montage(montage: Montage, files: dict[str, Path], size: int) -> np.ndarray:
    """Return uint8 ``[3, size, size]``."""
    import numpy as np
    from PIL import Image, ImageOps

    canvas = Image.new("RGB", (size, size))
    for tile in montage.tiles:
        left, top, right, bottom = (
            round(size * share) for share in (tile.left, tile.top, tile.right, tile.bottom)
        )
        with Image.open(files[tile.animal]) as opened:
            picture = opened.convert("RGB")
        part = ImageOps.fit(
            picture,
            (right - left, bottom - top),
            Image.Resampling.BICUBIC,
            centering=(tile.across, tile.down),
        )
        canvas.paste(part, (left, top))
    return np.ascontiguousarray(np.asarray(canvas, dtype=np.uint8).transpose(2, 0, 1))


def _origin(montage: Montage) -> str:
    parts = "; ".join(f"{tile.animal}: {ANIMALS[tile.animal].origin}" for tile in montage.tiles)
    return f"Montage, no real scene: {montage.told}, made of {parts}"
