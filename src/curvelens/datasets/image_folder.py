"""Pictures of one's own: a folder of them, or a folder with one folder a class."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from curvelens.datasets import REGISTRY
from curvelens.registry import Parameters

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset

logger = logging.getLogger(__name__)


class ImageFolderParameters(Parameters):
    """Parameters of :func:`load`."""

    size: int = Field(224, ge=8, le=4096, description="Height and width to which pictures are scaled.")
    classes: Literal["folders", "imagenet"] = Field(
        "imagenet",
        description="`imagenet`: the 1,000 classes of ImageNet, folders called by name, index or WordNet id; "
        "pictures outside folders are unlabelled unless their names begin with a WordNet id; `folders`: one "
        "class a folder.",
    )
    trainable: bool = Field(
        False, description="Whether part of the pictures may be trained on; else all are for explaining."
    )
    licence: str = Field("not stated", description="Terms of the pictures, for the record.")


@REGISTRY.register("image_folder", parameters=ImageFolderParameters, reference="the user's own pictures")
def load(parameters: ImageFolderParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """Pictures of one's own, in any format that Pillow reads, cut to their middle square and scaled.

    A picture that cannot be read is left out, with a warning and an entry in ``dataset.json``.

    Args:
        parameters: See :class:`ImageFolderParameters`.
        data_dir: Folder of pictures, or of one folder of pictures a class.
        cache_dir: Not used: nothing is downloaded.

    Returns:
        The pictures sorted by name; ids are paths inside the folder.

    Raises:
        DataError: There is no folder, no readable picture, or a folder that is no class.
    """
    import numpy as np

    from curvelens.datasets import RawDataset
    from curvelens.datasets._photographs import UNLABELLED, read_picture
    from curvelens.errors import DataError

    files = _files(data_dir)
    folder = data_dir or Path()
    names, label_of = _classes(parameters, folder, files)
    images, labels, ids, failed, digest = [], [], [], {}, hashlib.sha256()
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            images.append(read_picture(file, parameters.size))
        except DataError as error:
            failed[name] = str(error)
            logger.warning("%s: %s; it is left out", file, error)
            continue
        inside = file.parent != folder
        labels.append(label_of[file.parent.name] if inside else label_of.get(_synset(file), UNLABELLED))
        ids.append(f"image_folder/{name}")
        digest.update(images[-1].tobytes())
    if not images:
        name, reason = next(iter(failed.items()))
        raise DataError(f"data_dir {folder}: none of {len(failed)} pictures can be read; {name} {reason}")
    return RawDataset(
        images=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        ids=ids,
        class_names=names,
        source=f"pictures in the folder {folder.name}",
        licence=parameters.licence,
        sha256={"images": digest.hexdigest()},
        trainable=parameters.trainable,
        failed=failed,
    )


def _files(data_dir: Path | None) -> list[Path]:
    from curvelens.datasets._photographs import suffixes
    from curvelens.errors import DataError

    if data_dir is None:
        raise DataError("image_folder: set data_dir to a folder of pictures, or of one folder a class")
    known = suffixes()
    found = sorted(
        path
        for pattern in ("*", "*/*")
        for path in data_dir.glob(pattern)
        if path.is_file() and path.suffix.lower() in known and not path.name.startswith(".")
    )
    if not found:
        raise DataError(
            f"data_dir {data_dir}: holds no pictures; put them there, or into one folder a class inside it"
        )
    return found


def _classes(
    parameters: ImageFolderParameters, folder: Path, files: list[Path]
) -> tuple[list[str], dict[str, int]]:
    """Return the names of all classes, and the label that goes with each name of a folder or WordNet id."""
    from curvelens.datasets._photographs import imagenet_classes, imagenet_synsets
    from curvelens.errors import DataError

    present = sorted({file.parent.name for file in files if file.parent != folder})
    loose = sum(file.parent == folder for file in files)
    if parameters.classes == "folders":
        if len(present) < 2 or loose:
            raise DataError(
                f"data_dir {folder}: has {len(present)} class folders and {loose} pictures outside them; "
                "give one folder a class, 2 or more, or set parameters.classes to imagenet"
            )
        return present, {name: index for index, name in enumerate(present)}
    names = imagenet_classes()
    by_name = {_plain(name): index for index, name in enumerate(names)}
    by_synset = {synset: index for index, synset in enumerate(imagenet_synsets())}
    by_name |= {str(index): index for index in range(len(names))} | by_synset
    labels = {name: by_name.get(_plain(name)) for name in present}
    unknown = [name for name, label in labels.items() if label is None]
    if unknown:
        raise DataError(
            f"data_dir {folder}: '{unknown[0]}' is no class of ImageNet; call folders by a class's name or "
            "index, move the pictures out of them (they are then unlabelled), or set parameters.classes to "
            "folders"
        )
    return names, {**by_synset, **{name: label for name, label in labels.items() if label is not None}}


def _synset(file: Path) -> str:
    """Return what may be the WordNet id in a name such as ``n01440764_10026.JPEG``."""
    return file.name.partition("_")[0]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
