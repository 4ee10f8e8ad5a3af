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
from curvelens.store import load_json, load_npz, save_json
from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, SCHEMAS
from curvelens.writing import atomic

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
class Contest:
    """Maps of two classes by one method.

    Attributes:
        method: Its name.
        names: The two classes.
        maps: Attributions ``[2, H, W]``, the channels summed.
    """

    method: str
    names: tuple[str, str]
    maps: np.ndarray


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
        contests: Maps of two classes, by each method that explained both.
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
    contests: list[Contest] = field(default_factory=list)
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


def chosen(images: DataFrame, limit: int) -> DataFrame:
    """Return a row for each image that gets a page: misclassified ones first, then in the order given.

    Args:
        images: Rows of per-image tables, with ``image_id``, ``label`` and ``prediction``.
        limit: Most pages.
    """
    known = images[images["prediction"].notna()].drop_duplicates("image_id")
    return known.assign(_right=~misclassified(known)).sort_values("_right", kind="stable").head(limit)


def pictures(experiment: str, files: Mapping[str, Sequence[Path]], limit: int) -> Iterator[Picture]:
    """Yield what is known of each image of an experiment, one at a time.

    Args:
        experiment: Its name.
        files: ``tables`` (parquet), ``images`` (npz), ``models`` (JSON, the network that is explained first)
            and, where there are any, ``maps`` (npz, in a folder named after the method) and ``competing``
            (npz, maps of two classes).
        limit: Most images.

    Raises:
        DataError: A file is missing or damaged.
    """
    import pandas as pd

    tables = {path.stem: read_table(path) for path in files["tables"]}
    names = next((record.get("class_names") for record in map(load_json, files["models"])), None) or []
    about = [tables[name] for name in ("explanations", "competing") if name in tables]
    rows = chosen(pd.concat([table[list(IMAGE_COLUMNS)] for table in about]), limit)
    wanted = set(rows["image_id"])
    pixels = _pixels(files, wanted)
    found = _maps(files.get("maps", ()), wanted)
    contests = _contests(files.get("competing", ()), tables.get("competing"), wanted)
    for row in rows.itertuples():
        image_id = str(row.image_id)
        yield Picture(
            experiment,
            image_id,
            _name(names, row.label) if row.label >= 0 else None,
            _name(names, row.prediction),
            float(row.confidence),
            np.moveaxis(pixels[image_id], 0, -1).squeeze(),
            {name: found[name][image_id] for name in found if image_id in found[name]},
            _explained(tables.get("explanations"), image_id),
            contests.get(image_id, []),
            [told for name in tables if (told := _numbers(name, tables[name], image_id)) is not None],
        )


def _explained(index: DataFrame | None, image_id: str) -> dict[str, Mapping[str, Any]]:
    if index is None:
        return {}
    rows = index[(index["image_id"] == image_id) & index["method"].notna()]
    return {str(row["method"]): row for row in rows.to_dict("records")}


def _pixels(files: Mapping[str, Sequence[Path]], wanted: set[str]) -> dict[str, np.ndarray]:
    """Return images, uint8 ``[C, H, W]``, by id."""
    sets = [load_npz(path, ("ids", "images")) for path in files["images"]]
    found = [pair for one in sets for pair in zip(one["ids"].tolist(), one["images"], strict=True)]
    for path in files.get("competing", ()):
        shard = load_npz(path, ("ids", "pixels"))
        found += zip(shard["ids"].tolist(), shard["pixels"], strict=True)
    return {image_id: pixels for image_id, pixels in found if image_id in wanted}


def _contests(paths: Sequence[Path], table: DataFrame | None, wanted: set[str]) -> dict[str, list[Contest]]:
    """Return the maps of two classes, by image."""
    if table is None:
        return {}
    named = table.drop_duplicates(["image_id", "part", "method"]).set_index(["image_id", "part", "method"])
    found: dict[str, list[Contest]] = {}
    for path in paths:
        shard = load_npz(path, ("ids", "maps", "part", "method"))
        keys = zip(*(shard[name].tolist() for name in ("ids", "part", "method")), strict=True)
        for key, both in zip(keys, shard["maps"], strict=True):
            if key[0] in wanted:
                row = named.loc[key]
                names = (str(row["name_a"]), str(row["name_b"]))
                found.setdefault(key[0], []).append(Contest(key[2], names, both.sum(axis=1)))
    return found


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
    from curvelens.reporting import gallery_index, gallery_pages

    summaries.import_all()
    style = "\n".join(templates[name].read_text("utf-8") for name in ("style", "gallery"))
    cards: list[gallery_index.Card] = []
    for experiment, files in experiments.items():
        before: Picture | None = None
        current: Picture | None = None
        for following in chain(pictures(experiment, files, limit), [None]):
            if current is not None:
                beside = (before.page if before else None, following.page if following else None)
                _write(folder / current.page, gallery_pages.picture(title, current, beside, style))
                cards.append(gallery_index.card(current))
            before, current = current, following
    script = templates["script"].read_text("utf-8")
    _write(folder / "index.html", gallery_index.index(title, cards, style, script))
    listed: dict[str, dict[str, str]] = {experiment: {} for experiment in experiments}
    for card in cards:
        listed[card.experiment][card.image_id] = f"{folder.name}/{card.page}"
    save_json(folder / "pages.json", listed)
    return folder / "pages.json"


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
