"""The gallery: which images get a page, what is known of each, and the files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curvelens.figures import maps as postprocessing
from curvelens.figures.explanations import misclassified
from curvelens.figures.inputs import read_table
from curvelens.store import atomic, load_image_set, load_json, load_npz, save_json
from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, SCHEMAS

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_ROWS = 12  # of one table on one page
_HIDDEN = {*IMAGE_COLUMNS, *RUN_COLUMNS}


@dataclass(frozen=True)
class Fact:
    """One quantity of an image: its name, unit, meaning, and a value for each row of its table."""

    name: str
    unit: str
    meaning: str
    values: list[Any]


@dataclass(frozen=True)
class Numbers:
    """What one table says of an image.

    Attributes:
        table: Its name.
        rows: What tells its rows apart, e.g. the network; a single empty name where there is one.
        facts: Its quantities.
    """

    table: str
    rows: list[str]
    facts: list[Fact]


@dataclass(frozen=True)
class Picture:
    """One image of one experiment, with what is known of it.

    Attributes:
        experiment: Name of the experiment.
        image_id: Name of the image.
        label: Name of the true class, None where it is not known.
        prediction: Name of the predicted class.
        confidence: Its probability.
        pixels: uint8 ``[H, W, 3]`` or ``[H, W]``.
        maps: Attributions ``[H, W]`` by method, the channels summed.
        explained: A row of the index of explanations by method.
        numbers: What other tables say of it.
    """

    experiment: str
    image_id: str
    label: str | None
    prediction: str
    confidence: float
    pixels: np.ndarray
    maps: dict[str, np.ndarray]
    explained: dict[str, Mapping[str, Any]]
    numbers: list[Numbers] = field(default_factory=list)

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is the true class, None where that is not known."""
        return None if self.label is None else self.label == self.prediction

    @property
    def page(self) -> str:
        """The page's address below the gallery's folder."""
        return f"images/{self.experiment}/{slug(self.image_id)}.html"


def slug(image_id: str) -> str:
    """Return a file name, without suffix, of ASCII letters, digits and hyphens that differs for every id."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", image_id).strip("-")[-48:].strip("-").lower()
    return f"{plain or 'image'}-{hashlib.blake2b(image_id.encode(), digest_size=5).hexdigest()}"


def chosen(index: DataFrame, limit: int) -> DataFrame:
    """Return a row for each image that gets a page: misclassified ones first, then in the order of the split.

    Args:
        index: The table ``explanations``.
        limit: Most pages.
    """
    images = index[index["prediction"].notna()].drop_duplicates("image_id")
    wrong = misclassified(images)
    return images.assign(_right=~wrong).sort_values("_right", kind="stable").head(limit)


def pictures(experiment: str, files: Mapping[str, Sequence[Path]], limit: int) -> Iterator[Picture]:
    """Yield what is known of each image of an experiment, one at a time.

    Args:
        experiment: Its name.
        files: ``tables`` (parquet), ``maps`` (npz, in a folder named after the method), ``images`` (npz) and
            ``models`` (JSON), the network that is explained first.
        limit: Most images.

    Raises:
        DataError: A file is missing or damaged.
    """
    tables = {path.stem: read_table(path) for path in files["tables"]}
    names = next((record.get("class_names") for record in map(load_json, files["models"])), None) or []
    stored = [load_image_set(path) for path in files["images"]]
    places = {image_id: (images, i) for images in stored for i, image_id in enumerate(images.ids)}
    index = tables["explanations"]
    rows = chosen(index, limit)
    wanted = {str(image_id) for image_id in rows["image_id"]}
    found = _maps(files["maps"], wanted)
    for row in rows.itertuples():
        images, place = places[row.image_id]
        explained = index[index["image_id"] == row.image_id]
        yield Picture(
            experiment,
            str(row.image_id),
            None if row.label is None or row.label != row.label or row.label < 0 else _name(names, row.label),
            _name(names, row.prediction),
            float(row.confidence),
            np.moveaxis(images.images[place], 0, -1).squeeze(),
            {name: found[name][row.image_id] for name in found if row.image_id in found[name]},
            {str(one["method"]): one for one in explained.to_dict("records") if one["method"] is not None},
            [told for name in tables if (told := _numbers(name, tables[name], row.image_id)) is not None],
        )


def _name(names: Sequence[object], k: Any) -> str:
    return str(names[int(k)]) if int(k) < len(names) else str(int(k))


def _maps(paths: Sequence[Path], wanted: set[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return attributions ``[H, W]``, by method in the order of figures, then by image."""
    by_method: dict[str, dict[str, np.ndarray]] = {}
    for path in paths:
        shard = load_npz(path, ("ids", "attribution"))
        kept = by_method.setdefault(path.parent.name, {})
        for image_id, values in zip(shard["ids"].tolist(), shard["attribution"], strict=True):
            if image_id in wanted and np.isfinite(values).all():
                kept[image_id] = values.sum(axis=0)
    return {name: by_method[name] for name in postprocessing.ordered(list(by_method))}


def _numbers(name: str, table: DataFrame, image_id: str) -> Numbers | None:
    """Return what a table says of an image; None where it says nothing, or too much for a page."""
    schema = SCHEMAS.get(name)
    if schema is None or name == "explanations" or "image_id" not in schema.keys:
        return None
    rows = table[table["image_id"] == image_id]
    rows = rows[rows["status"] == "ok"] if "status" in rows else rows
    if not 0 < len(rows) <= MOST_ROWS:
        return None
    keys = [key for key in schema.keys if key != "image_id" and len(set(rows[key])) > 1]
    facts = [
        Fact(column.replace("_", " "), described.unit, described.description, rows[column].tolist())
        for column, described in schema.columns.items()
        if column not in _HIDDEN and column not in keys and rows[column].notna().any()
    ]
    return Numbers(name, [", ".join(f"{row[key]}" for key in keys) for _, row in rows.iterrows()], facts)


def write(
    title: str,
    experiments: Mapping[str, Mapping[str, Sequence[Path]]],
    templates: Mapping[str, Path],
    folder: Path,
    limit: int,
) -> Path:
    """Write the gallery: an index, a page an image, and a list of them for the report.

    Args:
        title: Heading of the report.
        experiments: Files by experiment, as for :func:`pictures`.
        templates: ``style`` (the report's), ``gallery`` (what the gallery adds to it) and ``script``.
        folder: Folder of the gallery; the report lies above it.
        limit: Most pages of an experiment.

    Returns:
        ``pages.json`` in the folder: address of each page, relative to the report, by experiment and image.

    Raises:
        DataError: A file is missing or damaged.
    """
    from curvelens import summaries
    from curvelens.reporting import gallery_pages as pages

    summaries.import_all()
    style = "\n".join(templates[name].read_text("utf-8") for name in ("style", "gallery"))
    cards: list[pages.Card] = []
    for experiment, files in experiments.items():
        before: Picture | None = None
        current: Picture | None = None
        for following in chain(pictures(experiment, files, limit), [None]):
            if current is not None:
                beside = (before.page if before else None, following.page if following else None)
                _write(folder / current.page, pages.picture(title, current, beside, style))
                cards.append(pages.card(current))
            before, current = current, following
    script = templates["script"].read_text("utf-8")
    _write(folder / "index.html", pages.index(title, cards, style, script))
    listed: dict[str, dict[str, str]] = {experiment: {} for experiment in experiments}
    for card in cards:
        listed[card.experiment][card.image_id] = f"{folder.name}/{card.page}"
    save_json(folder / "pages.json", listed)
    return folder / "pages.json"


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
