"""What every data set has to be, whoever wrote its loader: checked before anything is split or stored."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from curvelens.datasets._listing import shown
from curvelens.errors import DataError, brief

if TYPE_CHECKING:
    from curvelens.datasets import RawDataset


def check(name: str, raw: RawDataset) -> None:
    """Refuse a data set that the stages could not make sense of.

    Args:
        name: Its name, for messages.
        raw: What its loader returned.

    Raises:
        DataError: There are no images, or fewer than two classes; images, labels or masks have another type
            or length; a label is no class; an id comes twice; an id or the name of a class would not survive
            being written to a file.
    """
    where = f"data set {name}"
    count = len(raw.ids)
    if not count:
        raise DataError(f"{where}: has no images; correct its parameters, or add some")
    double = [one for one, times in Counter(raw.ids).items() if times > 1]
    if double:
        raise DataError(
            f"{where}: {len(double):,} ids come more than once, first {brief(double[0])}; ids tell images "
            "apart: give each its own"
        )
    if len(raw.class_names) < 2:
        raise DataError(
            f"{where}: has {len(raw.class_names)} class; a classifier needs 2 or more, add pictures of "
            "another, or name it in the class names"
        )
    for kind, names in (("id", raw.ids), ("class", raw.class_names)):
        odd = next((one for one in names if not isinstance(one, str) or not one or shown(one) != one), None)
        if odd is not None:
            raise DataError(
                f"{where}: the {kind} {brief(odd)} is no text of plain characters; rename it (control "
                "characters and marks that turn the direction of writing break files and terminals)"
            )
    try:
        raw.image_set()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    _check_labels(where, raw)


def _check_labels(where: str, raw: RawDataset) -> None:
    import numpy as np

    classes = len(raw.class_names)
    wrong = np.flatnonzero((raw.labels < -1) | (raw.labels >= classes))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: {len(wrong):,} of {len(raw.ids):,} labels are no class, first {raw.labels[first]} of "
            f"{raw.ids[first]!r}; give 0 to {classes - 1}, or -1 where the class is not known"
        )
    test = np.zeros(0, np.int64) if raw.test is None else np.asarray(raw.test)
    if len(test) and (test.min() < 0 or test.max() >= len(raw.ids)):
        raise DataError(
            f"{where}: its test split names positions from {test.min()} to {test.max()}, but there are "
            f"{len(raw.ids):,} images; correct the loader"
        )
