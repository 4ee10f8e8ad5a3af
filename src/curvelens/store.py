"""Artifacts on disk: sets of examples, named arrays, JSON. Written under a temporary name, then renamed.

A file that exists is therefore complete, the same content always has the same bytes, and nothing that is read
can run code. numpy is imported on first use.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvelens.errors import ArgumentError, DataError, on_one_line
from curvelens.npz import REMEDY, array_names, in_short, load_array, load_npz, required, save_npz
from curvelens.writing import atomic

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = [
    "REMEDY",
    "ImageSet",
    "RegressionSet",
    "array_names",
    "load_array",
    "load_explanations",
    "load_image_set",
    "load_json",
    "load_npz",
    "load_regression_set",
    "packaged",
    "save_explanations",
    "save_image_set",
    "save_json",
    "save_npz",
    "save_regression_set",
    "sha256",
]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        DataError: The file does not exist.
    """
    required(Path(path))
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON; NaN and infinity are refused, because JSON has neither.

    Raises:
        ArgumentError: A value has no JSON form.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{path}: cannot be written as JSON ({error}); give plain finite values"
        ) from error
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: The file is missing or is not JSON, which knows neither NaN nor infinity.
    """
    path = required(Path(path))
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({in_short(error)}); {REMEDY}") from error


def _characters(texts: np.ndarray) -> bool:
    """Return whether an array holds texts and nothing in them is beyond Unicode, which Python cannot hold."""
    import numpy as np

    if texts.dtype.kind != "U":
        return False
    codes = np.frombuffer(texts.tobytes(), np.dtype(np.uint32).newbyteorder(texts.dtype.byteorder))
    return bool(codes.max(initial=0) <= sys.maxunicode)


def _text(path: str | Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """Take the array ``ids`` out of what was read, as names that fit on one line."""
    ids = arrays.pop("ids")
    if ids.ndim != 1 or not _characters(ids) or not all(map(on_one_line, ids.tolist())):
        raise DataError(f"{path}: ids are no names, one line each; {REMEDY}")
    return list(ids.tolist())


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Attributes:
        images: uint8 ``[N, C, H, W]``, 0 is black.
        labels: int64 ``[N]``, class indices; -1 where the class is not known.
        ids: N unique names such as ``"mnist/00017"``.
        masks: uint8 ``[N, H, W]``: 0 where a pixel shows no object, 255 where that is not known (the
            border of an object, or an image without a mask), other values as ``mask_values`` in
            ``dataset.json`` says. None where the data set has no masks.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: list[str]
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or str(self.images.dtype) != "uint8":
            raise DataError(
                f"images must be uint8 [N, C, H, W], not {self.images.dtype} {list(self.images.shape)}; "
                "scale them to 0..255 and add the channel axis"
            )
        count = len(self.images)
        if self.labels.shape != (count,) or str(self.labels.dtype) != "int64":
            raise DataError(
                f"labels must be int64 [{count}], not {self.labels.dtype} {list(self.labels.shape)}; "
                "give one class index an image"
            )
        if len(self.ids) != count or len(set(self.ids)) != count:
            raise DataError(f"ids must be {count} different names, one an image; number the images")
        wanted = (count, *self.images.shape[2:])
        if self.masks is not None and (self.masks.shape != wanted or str(self.masks.dtype) != "uint8"):
            raise DataError(
                f"masks must be uint8 {list(wanted)}, not {self.masks.dtype} {list(self.masks.shape)}; "
                "give one an image, of its size"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def tensor(self, index: int | slice | Sequence[int] | np.ndarray = slice(None)) -> torch.Tensor:
        """Return pixels as float32 in [0, 1] on the CPU.

        Args:
            index: Position, slice or sequence of positions.

        Returns:
            ``[C, H, W]`` for a single position, else ``[n, C, H, W]``.
        """
        import numpy as np
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.images[index])).to(torch.float32) / 255

    def subset(self, index: slice | Sequence[int] | np.ndarray) -> ImageSet:
        """Return the images at the given positions, in that order."""
        import numpy as np

        positions = np.arange(len(self))[index]
        masks = None if self.masks is None else self.masks[positions]
        return ImageSet(
            self.images[positions], self.labels[positions], [self.ids[i] for i in positions], masks
        )

    def shard(self, index: int, count: int) -> ImageSet:
        """Return part ``index`` of ``count`` nearly equal consecutive parts.

        Raises:
            ArgumentError: There are more parts than images, or ``index`` is not in ``[0, count)``.
        """
        return self.subset(shard_rows(len(self), index, count))


def shard_rows(images: int, index: int, count: int) -> slice:
    """Return where part ``index`` of ``count`` nearly equal consecutive parts lies.

    Raises:
        ArgumentError: There are more parts than images, or ``index`` is not in ``[0, count)``.
    """
    if not 0 <= index < count or count > images:
        raise ArgumentError(
            f"shard {index} of {count} cannot be taken from {images} images; use fewer shards"
        )
    return slice(index * images // count, (index + 1) * images // count)


def save_image_set(path: str | Path, images: ImageSet) -> None:
    """Write an image set as npz: ``images``, ``labels``, ``ids`` and, where there are any, ``masks``."""
    arrays = {"images": images.images, "labels": images.labels, "ids": _names(images.ids)}
    save_npz(path, arrays if images.masks is None else {**arrays, "masks": images.masks})


def _names(ids: Sequence[str]) -> np.ndarray:
    """Return names as an array of text, which needs a length even where there is none."""
    import numpy as np

    return np.array(ids, dtype=np.str_) if ids else np.zeros(0, dtype="<U1")


def load_image_set(path: str | Path, rows: slice | None = None) -> ImageSet:
    """Read an image set.

    Args:
        path: Name of the file.
        rows: The images wanted, consecutive; the others are passed over without being held in memory. None
            reads all.

    Raises:
        DataError: The file is missing, damaged or no image set.
    """
    arrays = load_npz(path, ("images", "labels", "ids"), rows)
    ids = _text(path, arrays)
    try:
        return ImageSet(arrays["images"], arrays["labels"], ids, arrays.get("masks"))
    except DataError as error:
        raise DataError(f"{path}: no image set ({error}); {REMEDY}") from error


@dataclass(frozen=True, eq=False)
class RegressionSet:
    """Inputs with one number to predict for each.

    Attributes:
        inputs: float32 ``[N, *shape]``.
        targets: float32 ``[N]``.
        ids: N unique names.
    """

    inputs: np.ndarray
    targets: np.ndarray
    ids: list[str]

    def __post_init__(self) -> None:
        import numpy as np

        count = len(self.inputs) if self.inputs.ndim else 0
        if self.inputs.ndim < 2 or str(self.inputs.dtype) != "float32":
            raise DataError(
                f"inputs must be float32 [N, *shape], not {self.inputs.dtype} {list(self.inputs.shape)}; "
                "convert them and give each a shape"
            )
        if self.targets.shape != (count,) or str(self.targets.dtype) != "float32":
            raise DataError(
                f"targets must be float32 [{count}], not {self.targets.dtype} {list(self.targets.shape)}; "
                "give one number an input"
            )
        if len(self.ids) != count or len(set(self.ids)) != count:
            raise DataError(f"ids must be {count} different names, one an input; number the inputs")
        for name, array in (("inputs", self.inputs), ("targets", self.targets)):
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                raise DataError(
                    f"{name}: {len(bad):,} of {array.size:,} values are not finite, first of "
                    f"{self.ids[bad[0][0]]!r}; remove those examples"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, index: slice | Sequence[int] | np.ndarray) -> RegressionSet:
        """Return the examples at the given positions, in that order."""
        import numpy as np

        positions = np.arange(len(self))[index]
        return RegressionSet(
            self.inputs[positions], self.targets[positions], [self.ids[i] for i in positions]
        )


def save_regression_set(path: str | Path, examples: RegressionSet) -> None:
    """Write a regression set as npz with arrays ``inputs``, ``targets`` and ``ids``."""
    save_npz(path, {"inputs": examples.inputs, "targets": examples.targets, "ids": _names(examples.ids)})


def load_regression_set(path: str | Path) -> RegressionSet:
    """Read a regression set.

    Raises:
        DataError: The file is missing, damaged or no regression set.
    """
    arrays = load_npz(path, ("inputs", "targets", "ids"))
    ids = _text(path, arrays)
    try:
        return RegressionSet(arrays["inputs"], arrays["targets"], ids)
    except DataError as error:
        raise DataError(f"{path}: no regression set ({error}); {REMEDY}") from error


def save_explanations(path: str | Path, arrays: Mapping[str, Any], ids: Sequence[str]) -> None:
    """Write what a method yields for a shard of images; floating-point arrays become float32.

    Args:
        path: Name of the npz file.
        arrays: Arrays ``[N, ...]`` by name, e.g. ``{"attribution": [N, C, H, W]}``.
        ids: N image ids, in the same order.

    Raises:
        ArgumentError: An array has another length than ``ids``, or is called ``ids``.
    """
    import numpy as np

    stored: dict[str, np.ndarray] = {"ids": np.array(list(ids), dtype=np.str_)}
    for name, value in arrays.items():
        array = np.asarray(value)
        if name == "ids" or array.shape[:1] != (len(ids),):
            raise ArgumentError(
                f"{path}: array '{name}' {list(array.shape)} does not belong to {len(ids)} images; "
                "give one entry an image under a name other than 'ids'"
            )
        stored[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
    save_npz(path, stored)


def load_explanations(path: str | Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read what :func:`save_explanations` wrote.

    Returns:
        The arrays by name, and the image ids.

    Raises:
        DataError: The file is missing, damaged or inconsistent.
    """
    arrays = load_npz(path, ("ids",))
    ids = _text(path, arrays)
    for name, array in arrays.items():
        if array.shape[:1] != (len(ids),):
            raise DataError(f"{path}: array '{name}' has {list(array.shape)} for {len(ids)} images; {REMEDY}")
    return arrays, ids


def packaged(package: str, path: str) -> Path | None:
    """Return a file that ships inside an installed package, which is located but not imported.

    Args:
        package: Name by which it is imported.
        path: Path of the file inside it.

    Returns:
        The file; None where the package or the file is missing.
    """
    from importlib.util import find_spec

    spec = find_spec(package)
    folders = spec.submodule_search_locations or [] if spec is not None else []
    return next((Path(folder) / path for folder in folders if (Path(folder) / path).is_file()), None)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON knows")
