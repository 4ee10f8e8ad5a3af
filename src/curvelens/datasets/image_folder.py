"""Pictures of one's own: a folder or an archive, sorted by class folders or a table, perhaps with masks."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from curvelens import seeds
from curvelens.datasets import REGISTRY, Download
from curvelens.datasets._listing import Columns, class_label
from curvelens.registry import Parameters

if TYPE_CHECKING:
    import numpy as np

    from curvelens.datasets import RawDataset
    from curvelens.datasets._listing import Listed

logger = logging.getLogger(__name__)


class ImageFolderParameters(Parameters):
    """Parameters of :func:`load`."""

    size: int = Field(224, ge=8, le=4096, description="Height and width to which pictures are scaled.")
    classes: Literal["folders", "imagenet"] = Field(
        "imagenet",
        description="`imagenet`: the 1,000 classes of ImageNet, folders called by name, index or WordNet id; "
        "pictures outside folders are unlabelled unless their names begin with a WordNet id; `folders`: one "
        "class a folder, or a label of the table.",
    )
    class_names: list[str] | None = Field(
        None,
        min_length=2,
        description="With `folders`: the classes in the order of a network's outputs; pictures without a "
        "class are then unlabelled. null: those that are there, sorted.",
    )
    trainable: bool = Field(
        False, description="Whether part of the pictures may be trained on; else all are for explaining."
    )
    licence: str = Field("not stated", description="Terms of the pictures, for the record.")
    source: str | None = Field(None, description="Where they come from; null: the folder's name, or the URL.")
    pictures: str = Field(
        ".", description="The folder of the pictures inside data_dir, or inside the archive."
    )
    table: str | None = Field(
        None, description="A CSV in that folder which lists the pictures, instead of class folders."
    )
    columns: Columns = Field(default_factory=Columns, description="Which column of the table says what.")
    masks: str | None = Field(
        None,
        description="A folder inside data_dir, or the archive, with a mask for each picture (`cat/3.png` for "
        "`cat/3.jpg`): 0 background, 255 not known.",
    )
    mask_values: dict[Annotated[int, Field(ge=1, le=254)], str] = Field(
        default_factory=dict,
        description="Class of each other value of a mask. A picture without a class takes that of its mask, "
        "if it is one of `class_names`.",
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="A zip or tar archive to download; data_dir, where given, replaces it.",
    )
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="Checksum of the archive; needed with `url`."
    )
    most: int | None = Field(
        None,
        ge=1,
        description="Read this many pictures, as if drawn at random, by their names alone; null reads all.",
    )
    unpacked_gib: float = Field(4.0, gt=0, description="What an archive may unpack to, at most.")

    @model_validator(mode="after")
    def _fit_together(self) -> ImageFolderParameters:
        if self.url is not None and self.sha256 is None:
            raise ValueError("url is given without sha256; add the archive's checksum")
        if self.class_names is not None and self.classes != "folders":
            raise ValueError("class_names is given with classes: imagenet; set classes to folders")
        names = list(map(class_label, self.class_names or ()))
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"class_names has {double!r} twice; name each class once")
        for key, value in (("pictures", self.pictures), ("masks", self.masks), ("table", self.table)):
            path = PurePosixPath(value or ".")
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{key} = {value!r} leads out of data_dir; give a path inside it")
        return self


def archives(parameters: ImageFolderParameters) -> tuple[Download, ...]:
    """Return the archive to download; none where there is no `url`."""
    if parameters.url is None or parameters.sha256 is None:
        return ()
    # Packing does not double what it packs.
    most = int(2 * parameters.unpacked_gib * 2**30)
    return (Download(f"{parameters.sha256[:16]}.archive", (parameters.url,), parameters.sha256, most),)


@REGISTRY.register(
    "image_folder",
    parameters=ImageFolderParameters,
    reference="the user's own pictures",
    archive=True,
    downloads=archives,
)
def load(parameters: ImageFolderParameters, data_dir: Path | None, cache_dir: Path) -> RawDataset:
    """Pictures of one's own, in any format that Pillow reads, cut to their middle square and scaled.

    A picture that cannot be read is left out, with a warning and an entry in ``dataset.json``; so is a mask.

    Args:
        parameters: See :class:`ImageFolderParameters`.
        data_dir: Folder or archive of pictures, of one folder a class, of ``train`` and ``test`` with such
            folders each, or with a table.
        cache_dir: Folder that keeps the archive, where one is downloaded.

    Returns:
        The pictures sorted by name; ids are paths inside the folder, or those of the table.

    Raises:
        DataError: There is no folder, no readable picture, an empty class, a folder that is no class, or two
            pictures with one id; or the archive cannot be had, is another one, or is not safe to unpack.
    """
    from curvelens.datasets._listing import list_folder, list_table
    from curvelens.errors import DataError

    with _folder(parameters, data_dir, cache_dir) as root:
        folder = root / parameters.pictures
        if not folder.is_dir():
            raise DataError(
                f"data_dir {root}: has no folder {parameters.pictures}; correct parameters.pictures"
            )
        if parameters.table is not None:
            listed = list_table(folder, parameters.table, parameters.columns)
        else:
            listed = list_folder(folder, parameters.classes == "folders")
        listed = _sample(listed, parameters.most)
        masks = None if parameters.masks is None else root / parameters.masks
        if masks is not None and not masks.is_dir():
            raise DataError(f"data_dir {root}: has no folder {parameters.masks}; correct parameters.masks")
        return _dataset(parameters, folder, listed, masks, _source(parameters, data_dir))


@contextlib.contextmanager
def _folder(parameters: ImageFolderParameters, data_dir: Path | None, cache_dir: Path) -> Iterator[Path]:
    """Give the folder of the pictures, unpacked for the time being where they are in an archive."""
    from curvelens.datasets._archives import unpacked
    from curvelens.datasets._download import fetch
    from curvelens.errors import DataError

    archive = data_dir if data_dir is not None and data_dir.is_file() else None
    for file in archives(parameters):
        if data_dir is None or (data_dir / file.name).is_file():
            place = cache_dir / "image_folder" if data_dir is None else data_dir
            archive = fetch(file.urls, place / file.name, file.sha256, most=file.most)
    if archive is not None:
        with unpacked(archive, parameters.unpacked_gib * 2**30) as folder:
            yield folder
    elif data_dir is not None:
        yield data_dir
    else:
        raise DataError(
            "image_folder: set data_dir to a folder of pictures, or of one folder a class, or parameters.url "
            "to an archive of them"
        )


def _sample(listed: list[Listed], most: int | None) -> list[Listed]:
    """Return as many pictures as asked for, in their order; which ones depends on their names alone."""
    if most is None or len(listed) <= most:
        return listed
    drawn = {one.name for one in sorted(listed, key=lambda one: seeds.derive(0, "picture", one.name))[:most]}
    return [one for one in listed if one.name in drawn]


def _source(parameters: ImageFolderParameters, data_dir: Path | None) -> str:
    return parameters.source or parameters.url or f"pictures in the folder {(data_dir or Path()).name}"


def _dataset(
    parameters: ImageFolderParameters, folder: Path, listed: list[Listed], masks: Path | None, source: str
) -> RawDataset:
    """Read what is listed; what cannot be read goes to ``failed``."""
    import numpy as np

    from curvelens.datasets import RawDataset
    from curvelens.datasets._classes import classes_of_imagenet, own_classes
    from curvelens.datasets._photographs import read_picture
    from curvelens.errors import DataError

    failed: dict[str, str] = {}
    images, layers, kept, digest = [], [], [], hashlib.sha256()
    for one in listed:
        try:
            if one.problem:
                raise DataError(one.problem)
            images.append(read_picture(one.path, parameters.size))
        except DataError as error:
            failed[one.name] = str(error)
            logger.warning("%s: %s; it is left out", one.name, error)
            continue
        kept.append(one)
        digest.update(images[-1].tobytes())
        if masks is not None:
            layers.append(_mask(parameters, masks, folder, one, failed))
            digest.update(layers[-1].tobytes())
    if not images:
        name, reason = next(iter(failed.items()))
        raise DataError(f"data_dir {folder}: none of {len(failed)} pictures can be read; {name} {reason}")
    if parameters.classes == "folders":
        given = [one.label for one in listed]
        known = parameters.class_names and [class_label(name) for name in parameters.class_names]
        names, labels = own_classes(folder, given, _classes(parameters, kept, layers, known or ()), known)
    else:
        names, labels = classes_of_imagenet(folder, [(one.label, one.path.name) for one in kept])
    ids = [f"image_folder/{one.name}" for one in kept]
    parts = [index for index, one in enumerate(kept) if one.split == "test"]
    return RawDataset(
        images=np.stack(images),
        labels=np.array(labels, dtype=np.int64),
        ids=ids,
        class_names=names,
        source=source,
        licence=parameters.licence,
        sha256={"images": digest.hexdigest()},
        test=np.array(parts) if parts else None,
        trainable=parameters.trainable,
        origins={name: one.origin for name, one in zip(ids, kept, strict=True) if one.origin},
        failed=failed,
        masks=np.stack(layers) if layers else None,
        mask_values=parameters.mask_values,
        facts={name: dict(one.facts) for name, one in zip(ids, kept, strict=True) if one.facts},
    )


def _mask(
    parameters: ImageFolderParameters, masks: Path, folder: Path, one: Listed, failed: dict[str, str]
) -> np.ndarray:
    """Return the mask of a picture, nowhere known where it has none that can be read."""
    import numpy as np

    from curvelens.datasets._masks import UNKNOWN, find_mask, read_mask
    from curvelens.errors import DataError

    try:
        file = find_mask(masks, one.path.relative_to(folder))
        if file is None:
            raise DataError("is not there; draw one, or do without")
        return read_mask(file, one.path, parameters.size)
    except DataError as error:
        failed[f"mask of {one.name}"] = str(error)
        logger.warning("mask of %s: %s", one.name, error)
        return np.full((parameters.size, parameters.size), UNKNOWN, dtype=np.uint8)


def _classes(
    parameters: ImageFolderParameters, kept: list[Listed], layers: list[np.ndarray], known: Sequence[str]
) -> list[str | None]:
    """Return the class of each picture: its own, or else that of its mask."""
    from curvelens.datasets._masks import label_of

    own = [one.label for one in kept]
    masked = [label_of(layer, parameters.mask_values) for layer in layers] or [None] * len(own)
    return [name or (other if other in known else None) for name, other in zip(own, masked, strict=True)]
