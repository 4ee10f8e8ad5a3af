"""Reading picture files of any kind as 8-bit RGB squares, and the names of ImageNet's classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from curvelens.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image, Resampling

T = TypeVar("T")
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}
UNLABELLED = -1  # label of a picture whose class is not known
_WIDE = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}  # grey values of more than 8 bits


def read_picture(path: Path, size: int) -> np.ndarray:
    """Read one picture: turned as its EXIF entry says, its middle square, scaled by cubic splines.

    Grey, palette and CMYK pictures become RGB; 16 bits become 8; what is transparent is laid on white; of an
    animation the first frame is taken.

    Args:
        path: A file of any format that Pillow knows.
        size: Height and width of the result.

    Returns:
        uint8 ``[3, size, size]``.

    Raises:
        DataError: The file is no picture, is damaged or incomplete, or has no meaning as one; the message
            leaves out the path.
    """
    import numpy as np
    from PIL import Image, ImageOps

    picture = opened(path, lambda one: _rgb(ImageOps.exif_transpose(one)))
    scaled = middle_square(picture, size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1))


def opened(path: Path, use: Callable[[Image], T], load: bool = True) -> T:
    """Open a picture file, however large, and return what ``use`` makes of it.

    What the file holds counts, not its name: PostScript, which an interpreter would have to run, is no
    picture whatever it is called.

    Args:
        path: The file.
        use: What is done with the picture while the file is open.
        load: Whether its pixels are decoded first.

    Raises:
        DataError: The file is no picture, or is damaged; the message leaves out the path.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as picture:
                if load:
                    picture.load()
                return use(picture)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever damage leads them to
        raise DataError(_reason(error)) from error


def middle_square(picture: Image, size: int, resampling: Resampling) -> Image:
    """Return the middle square of a picture, scaled to ``size`` x ``size``."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((size, size), resampling)


def packaged_picture(package: str, path: str) -> Path:
    """Return a picture that ships inside an installed package.

    Args:
        package: Name under which the package is imported.
        path: Where the picture lies there.

    Raises:
        DataError: The package is missing, or holds no such file.
    """
    from curvelens.store import packaged

    file = packaged(package, path)
    if file is None:
        name = _DISTRIBUTIONS.get(package, package)
        raise DataError(
            f"package {name} does not hold {path}; install the pinned version: pip install {name}"
        )
    return file


def imagenet_classes() -> list[str]:
    """Return the names of ImageNet's 1,000 classes in their usual order, as torchvision lists them."""
    from torchvision.models import ResNet50_Weights

    return list(ResNet50_Weights.DEFAULT.meta["categories"])


def imagenet_synsets() -> list[str]:
    """Return the WordNet ids of ImageNet's 1,000 classes, such as ``n01440764``, in their usual order."""
    from curvelens.store import packaged

    path = packaged("timm", "data/_info/imagenet_synsets.txt")
    if path is None:
        raise DataError(
            "package timm does not hold ImageNet's ids; install the pinned version: pip install timm"
        )
    return path.read_text(encoding="ascii").split()


def suffixes() -> set[str]:
    """Return the lower-case file name endings that Pillow can read."""
    from PIL import Image

    known = _formats()
    return {ending for ending, kind in Image.registered_extensions().items() if kind in known}


def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [kind for kind in Image.OPEN if kind not in _NO_PICTURES]


_NO_PICTURES = {"PDF", "EPS", "MPEG", "HDF5", "GRIB", "BUFR", "WMF"}  # documents, films, measurements


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode in _WIDE:
        picture = _eight_bits(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image) -> Image:
    """Scale 16 bits, or floating-point numbers in [0, 1], to 8 bits."""
    import numpy as np
    from PIL import Image

    values = np.asarray(picture).astype(np.float64)
    largest = 1.0 if picture.mode == "F" else 65535.0
    if wild := int((~np.isfinite(values)).sum()):
        raise DataError(
            f"{wild:,} of {values.size:,} grey values are not finite; store it as an 8-bit picture"
        )
    if not (values.min() >= 0 and values.max() <= largest):
        raise DataError(
            f"grey values from {values.min():g} to {values.max():g} are not within 0 and {largest:g}; "
            "store it as an 8-bit picture"
        )
    return Image.fromarray((values * (255 / largest)).round().astype(np.uint8))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "UnidentifiedImageError":
        return "is not a picture, or is damaged; replace it, or take it away"
    return f"cannot be decoded ({': '.join(filter(None, [type(error).__name__, text]))}); save it again"
