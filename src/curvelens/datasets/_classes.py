"""Class names of a folder's pictures: the pictures' own, or those of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curvelens.datasets._listing import shown
from curvelens.datasets._photographs import UNLABELLED, imagenet_classes, imagenet_synsets
from curvelens.errors import DataError


def own_classes(
    folder: Path, given: Sequence[str | None], readable: Sequence[str | None], names: Sequence[str] | None
) -> tuple[list[str], list[int]]:
    """Return the names of all classes, and the label of each readable picture.

    Args:
        folder: Where the pictures are, for messages.
        given: Class of each picture that was found; None where it has none.
        readable: The same for those that could be read.
        names: The classes in their order; None takes those that were found, sorted.

    Raises:
        DataError: A class is not among the names, there are fewer than two, or no picture of one can be read;
            or no names are given and a picture has no class.
    """
    present = sorted({name for name in given if name is not None})
    loose = sum(name is None for name in given)
    if names is None and (len(present) < 2 or loose):
        raise DataError(
            f"data_dir {folder}: has {len(present)} class folders and {loose} pictures outside them; "
            "give one folder a class, 2 or more, or name the classes in parameters.class_names, or set "
            "parameters.classes to imagenet"
        )
    for name in present:
        if names is not None and name not in names:
            raise DataError(
                f"data_dir {folder}: '{shown(name)}' is none of parameters.class_names; name it there, "
                "or take its pictures away"
            )
        if name not in readable:
            raise DataError(
                f"data_dir {folder}: no picture of class '{shown(name)}' can be read; replace them"
            )
    known = {name: index for index, name in enumerate(names or present)}
    return list(known), [UNLABELLED if name is None else known[name] for name in readable]


def classes_of_imagenet(
    folder: Path, readable: Sequence[tuple[str | None, str]]
) -> tuple[list[str], list[int]]:
    """Return the names of ImageNet's classes, and the label of each picture.

    Args:
        folder: Where the pictures are, for messages.
        readable: Name, index or WordNet id of each picture's class, None where it has none, and the name of
            its file, which may then begin with such an id: ``n01440764_10026.JPEG``.

    Raises:
        DataError: A name is no class of ImageNet.
    """
    names = imagenet_classes()
    synsets = {synset: index for index, synset in enumerate(imagenet_synsets())}
    known = {_plain(name): index for index, name in enumerate(names)}
    known |= {str(index): index for index in range(len(names))} | synsets
    for name, _ in readable:
        if name is not None and _plain(name) not in known:
            raise DataError(
                f"data_dir {folder}: '{shown(name)}' is no class of ImageNet; call folders by a class's "
                "name, index or WordNet id, move the pictures out of them (they are then unlabelled), or set "
                "parameters.classes to folders"
            )
    return names, [
        synsets.get(file.partition("_")[0], UNLABELLED) if name is None else known[_plain(name)]
        for name, file in readable
    ]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
