"""Masks of pictures: for each pixel a whole number, 0 where there is no object and 255 where nobody says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from curvelens.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

BACKGROUND, UNKNOWN = 0, 255
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange height and width
_SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff")  # formats that keep every value


def find_mask(folder: Path, picture: Path) -> Path | None:
    """Return the mask of a picture: the same path and name with an ending such as ``.png``.

    Args:
        folder: The folder of masks.
        picture: Path of the picture relative to its own folder; masks may also lie side by side, without the
            picture's folders.
    """
    for stem in (folder / picture.with_suffix(""), folder / picture.stem):
        for suffix in _SUFFIXES:
            file = stem.with_name(stem.name + suffix)
            if os.path.isfile(file):
                return file
    return None


def read_mask(path: Path, picture: Path, size: int) -> np.ndarray:
    """Read a mask as :func:`~curvelens.datasets._photographs.read_picture` reads its picture.

    It is turned with the picture where it is stored like it, cut to the same middle square and scaled by the
    nearest pixel, so that no value appears that was not there. Of a palette the indices count.

    Args:
        path: A grey picture, or one with a palette, of 8 bits or 1 bit; as large as the picture.
        picture: The picture.
        size: Height and width of the result.

    Returns:
        uint8 ``[size, size]``.

    Raises:
        DataError: It is no such file, or of another size than the picture; the message leaves out the path.
    """
    import numpy as np
    from PIL import Image, ImageOps

    from curvelens.datasets._photographs import middle_square, opened

    stored, turn = opened(picture, lambda one: (one.size, one.getexif().get(_ORIENTATION, 1)), load=False)
    shown = stored[::-1] if turn in (5, 6, 7, 8) else stored
    mask = opened(path, _whole_numbers)
    if turn != 1 and mask.size == stored:
        mask.getexif()[_ORIENTATION] = turn
        mask = ImageOps.exif_transpose(mask)
    if mask.size != shown:
        raise DataError(
            f"is {mask.size[0]} x {mask.size[1]} pixels, its picture {shown[0]} x {shown[1]}; draw it again"
        )
    return np.asarray(middle_square(mask, size, Image.Resampling.NEAREST), dtype=np.uint8)


def label_of(mask: np.ndarray, values: Mapping[int, str]) -> str | None:
    """Return the class of the only kind of object that a mask shows; None where it shows several, or none.

    Args:
        mask: uint8 ``[H, W]``.
        values: Class of each value that stands for one.
    """
    import numpy as np

    found = {int(value) for value in np.unique(mask)} - {BACKGROUND, UNKNOWN}
    return values.get(next(iter(found))) if len(found) == 1 else None


def _whole_numbers(picture: Image) -> Image:
    import numpy as np
    from PIL import Image

    if picture.mode not in ("1", "L", "P"):
        raise DataError(
            f"is a picture of mode {picture.mode}, not of whole numbers; store a mask in shades of grey "
            "or with a palette, 8 bits a pixel"
        )
    return Image.fromarray(np.asarray(picture).astype(np.uint8))
