"""Photographs that ship inside scikit-image and foolbox, for networks with the classes of ImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from curvelens.datasets import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


class Photograph(NamedTuple):
    """A picture inside scikit-image.

    Attributes:
        file: Its name there.
        label: Index of the class of ImageNet that comes nearest to what it shows.
        origin: Where it comes from and under which terms, after scikit-image's documentation.
    """

    file: str
    label: int
    origin: str


_SCIKIT_IMAGE = (
    Photograph("chelsea.png", 281, "Chelsea the cat, by Stefan van der Walt; CC0"),
    Photograph("coffee.png", 967, "A cup of coffee, by Rachel Michetti, Pikolo Espresso Bar; CC0"),
    Photograph("camera.png", 872, "Man with a camera, by Lav Varshney; CC0"),
    Photograph("rocket.jpg", 657, "Start of a Falcon 9 with DSCOVR, by SpaceX; public domain"),
    Photograph("astronaut.png", 812, "Eileen Collins before a space shuttle, by NASA; public domain"),
    Photograph(
        "motorcycle_left.png",
        670,
        "Motorcycle, Middlebury 2014 stereo benchmark, by Scharstein, Hirschmüller, Kitajima, Krathwohl, "
        "Nešić, Wang and Westling; free for research",
    ),
)
_FOOLBOX_LABELS = (
    *(243, 559, 438, 990, 949, 853, 609, 609, 915, 455),
    *(541, 630, 741, 471, 129, 99, 251, 22, 317, 305),
)
_FOOLBOX_ORIGIN = "Sample of ImageNet as shipped in foolbox by J. Rauber and others (MIT); terms of ImageNet"


class PackagedPhotographsParameters(Parameters):
    """Parameters of :func:`load`."""

    size: int = Field(224, ge=32, le=300, description="Height and width to which photographs are scaled.")


@REGISTRY.register(
    "packaged_photographs",
    parameters=PackagedPhotographsParameters,
    reference="van der Walt et al. 2014, scikit-image; Rauber et al. 2020, foolbox; Russakovsky et al. 2015",
    images=26,
    classes=1000,
    image_shape=(3, 224, 224),
    official_test=False,
    trainable=False,
)
def load(parameters: PackagedPhotographsParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """26 photographs with labels of ImageNet: 6 that ship inside scikit-image and 20 inside foolbox.

    They are too few to train on and serve to explain networks that were trained elsewhere. The labels of
    foolbox's pictures are in their names; those of scikit-image's are the nearest class, given here.

    Args:
        parameters: See :class:`PackagedPhotographsParameters`.
        data_dir: Not used.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        scikit-image's pictures first, with the origin and terms of each; there are no training images.

    Raises:
        DataError: A package is missing, or holds other files.
    """
    import numpy as np

    from curvelens.datasets import RawDataset, content_sha256
    from curvelens.datasets._photographs import imagenet_classes, read_picture

    names = imagenet_classes()
    files = [("skimage", f"data/{one.file}", one.label, one.origin) for one in _SCIKIT_IMAGE]
    files += [
        ("foolbox", f"data/imagenet_{index:02d}_{label}.jpg", label, _FOOLBOX_ORIGIN)
        for index, label in enumerate(_FOOLBOX_LABELS)
    ]
    images = [read_picture(_located(package, path), parameters.size) for package, path, _, _ in files]
    labels = np.array([label for _, _, label, _ in files], dtype=np.int64)
    ids = [f"{package}/{Path(path).stem}" for package, path, _, _ in files]
    stacked = np.stack(images)
    return RawDataset(
        images=stacked,
        labels=labels,
        ids=ids,
        class_names=names,
        source="6 photographs as shipped in scikit-image and 20 of ImageNet as shipped in foolbox",
        licence="of each picture its own, see origins in dataset.json",
        sha256={"images and labels": content_sha256(stacked, labels)},
        trainable=False,
        origins={name: origin for name, (_, _, _, origin) in zip(ids, files, strict=True)},
    )


def _located(package: str, path: str) -> Path:
    from curvelens.errors import DataError
    from curvelens.store import packaged

    file = packaged(package, path)
    if file is None:
        name = {"skimage": "scikit-image"}.get(package, package)
        raise DataError(
            f"package {name} does not hold {path}; install the pinned version: pip install {name}"
        )
    return file
