"""Photographs that ship inside installed packages, for networks with the classes of ImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from curvelens.datasets import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


class Photograph(NamedTuple):
    """A picture inside a package.

    Attributes:
        package: Name under which the package is imported.
        path: Where it lies there.
        label: Index of the class of ImageNet that comes nearest to what it shows; -1 where none does.
        origin: Where it comes from and under which terms, after the package's documentation.
    """

    package: str
    path: str
    label: int
    origin: str


_SCIKIT_IMAGE = (
    Photograph("skimage", "data/chelsea.png", 281, "Chelsea the cat, by Stefan van der Walt; CC0"),
    Photograph(
        "skimage",
        "data/coffee.png",
        967,
        "A cup of coffee, by Rachel Michetti, Pikolo Espresso Bar; CC0",
    ),
    Photograph("skimage", "data/camera.png", 872, "Man with a camera, by Lav Varshney; CC0"),
    Photograph(
        "skimage",
        "data/rocket.jpg",
        657,
        "Start of a Falcon 9 with DSCOVR, by SpaceX; public domain",
    ),
    Photograph(
        "skimage",
        "data/astronaut.png",
        812,
        "Eileen Collins before a space shuttle, by NASA; public domain",
    ),
    Photograph(
        "skimage",
        "data/motorcycle_left.png",
        670,
        "Motorcycle, Middlebury 2014 stereo benchmark, by Scharstein, Hirschmüller, Kitajima, Krathwohl, "
        "Nešić, Wang and Westling; free for research",
    ),
)
_OTHERS = (
    Photograph(
        "skimage",
        "data/clock_motion.png",
        892,
        "A wall clock, blurred by motion, by Stefan van der Walt; public domain",
    ),
    Photograph(
        "skimage",
        "data/coins.png",
        -1,
        "Greek coins from Pompeii, Brooklyn Museum; no known copyright restrictions",
    ),
    Photograph("skimage", "data/brick.png", -1, "A brick wall, CC0Textures Bricks25; CC0"),
    Photograph("skimage", "data/grass.png", -1, "Grass, CC0Textures; CC0"),
    Photograph("skimage", "data/gravel.png", -1, "Gravel, CC0Textures Gravel04; CC0"),
    Photograph(
        "skimage", "data/hubble_deep_field.jpg", -1, "Hubble eXtreme Deep Field, by NASA; public domain"
    ),
    Photograph(
        "skimage",
        "data/retina.jpg",
        -1,
        "Retina of a human eye, by Mikael Häggström, WikiJournal of Medicine 2014; CC0",
    ),
    Photograph(
        "sklearn",
        "datasets/images/china.jpg",
        698,
        "The Summer Palace in Beijing, by danielbuechele; CC BY 2.0",
    ),
    Photograph("sklearn", "datasets/images/flower.jpg", -1, "A dahlia, by vultilion; CC BY 2.0"),
    Photograph(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        652,
        "Grace Hopper in uniform, US Navy; public domain",
    ),
)
_FOOLBOX_LABELS = (
    *(243, 559, 438, 990, 949, 853, 609, 609, 915, 455),
    *(541, 630, 741, 471, 129, 99, 251, 22, 317, 305),
)
_FOOLBOX_ORIGIN = "Sample of ImageNet as shipped in foolbox by J. Rauber and others (MIT); terms of ImageNet"
_FOOLBOX = tuple(
    Photograph("foolbox", f"data/imagenet_{index:02d}_{label}.jpg", label, _FOOLBOX_ORIGIN)
    for index, label in enumerate(_FOOLBOX_LABELS)
)
_ALL = (*_SCIKIT_IMAGE, *_FOOLBOX, *_OTHERS)


class PackagedPhotographsParameters(Parameters):
    """Parameters of :func:`load`."""

    size: int = Field(224, ge=32, le=300, description="Height and width to which photographs are scaled.")


@REGISTRY.register(
    "packaged_photographs",
    parameters=PackagedPhotographsParameters,
    reference="van der Walt et al. 2014, scikit-image; Rauber et al. 2020, foolbox; Russakovsky et al. 2015; "
    "Pedregosa et al. 2011, scikit-learn; Hunter 2007, matplotlib",
    images=36,
    classes=1000,
    image_shape=(3, 224, 224),
    official_test=False,
    trainable=False,
)
def load(parameters: PackagedPhotographsParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """36 photographs: 20 of ImageNet that ship inside foolbox, and 16 inside scikit-image, scikit-learn and
    matplotlib.

    They are too few to train on and serve to explain networks that were trained elsewhere. The labels of
    foolbox's pictures are in their names; those of the others are the nearest class of ImageNet, given here.
    7 show something that no class comes near to, and are unlabelled.

    Args:
        parameters: See :class:`PackagedPhotographsParameters`.
        data_dir: Not used.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        The pictures, with the origin and terms of each; there are no training images.

    Raises:
        DataError: A package is missing, or holds other files.
    """
    import numpy as np

    from curvelens.datasets import RawDataset, content_sha256
    from curvelens.datasets._photographs import imagenet_classes, packaged_picture, read_picture

    labels = np.array([one.label for one in _ALL], dtype=np.int64)
    ids = [f"{one.package}/{Path(one.path).stem}" for one in _ALL]
    stacked = np.stack(
        [read_picture(packaged_picture(one.package, one.path), parameters.size) for one in _ALL]
    )
    return RawDataset(
        images=stacked,
        labels=labels,
        ids=ids,
        class_names=imagenet_classes(),
        source="36 photographs as shipped in scikit-image, scikit-learn and matplotlib, and, 20 of ImageNet, "
        "in foolbox",
        licence="of each picture its own, see origins in dataset.json",
        sha256={"images and labels": content_sha256(stacked, labels)},
        trainable=False,
        origins={name: one.origin for name, one in zip(ids, _ALL, strict=True)},
    )
