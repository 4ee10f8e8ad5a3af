"""The tables of two classes' explanations of one image, set for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curvelens.figures._competing import share
from curvelens.figures.maps import NAMES
from curvelens.figures.wording import MISSING, count, number, percent
from curvelens.reporting.html import Html, bullets, details, element, table
from curvelens.summaries.competing import MISTAKE, RIGHT, SCENE, ordered

if TYPE_CHECKING:
    from pandas import DataFrame


def _decimal(value: float) -> str:
    return MISSING if value != value else f"{value:.2f}".replace("-", "−")


def _scores(row: Any) -> Html:
    """Return both classes with their scores and probabilities, a line each."""
    return Html(
        *(
            element("div", f"{name} {number(score)}", element("small", f" ({share(p)})"))
            for name, score, p in (
                (row.name_a, row.score_a, row.probability_a),
                (row.name_b, row.score_b, row.probability_b),
            )
        )
    )


def _origins(rows: DataFrame) -> Html:
    """Return where each picture comes from."""
    images = rows.drop_duplicates("image_id")
    told = (Html(element("b", row.image_id), f": {row.origin}") for row in images.itertuples())
    return details(
        f"Where {'this picture comes' if len(images) == 1 else 'these pictures come'} from", bullets(told)
    )


def mistakes(rows: DataFrame) -> Html:
    """Return one row for each image and method: both classes' scores, and how far their maps agree.

    Args:
        rows: The table ``competing``.
    """
    chosen = ordered(rows, MISTAKE, RIGHT)
    if chosen.empty:
        return Html()
    head = [["image", "predicted, true or next", "method", "cosine", "rank corr.", "common mass"]]
    body: list[list[object]] = []
    seen: set[str] = set()
    for row in chosen.itertuples():
        measured = [_decimal(one) for one in (row.cosine, row.rank_correlation, row.common_mass)]
        said: object = str(row.image_id) if row.part == RIGHT else element("b", row.image_id)
        # What all methods of an image share stands in its first row alone.
        start = [said, _scores(row)] if row.image_id not in seen else ["", ""]
        seen.add(row.image_id)
        body.append([*start, NAMES.get(row.method, row.method), *measured])
    text = (
        f"The {chosen['scalar'].iloc[0].replace('_', ' ')} and the probability of the predicted class and of "
        "the true one (for images that were classified correctly: of the runner-up), and how far the maps of "
        "both agree: cosine with signs, rank correlation of the magnitudes, mass in common. Errors in bold "
        f"({count(chosen['image_id'].nunique(), 'image')})."
    )
    return Html(table(head, body, text), _origins(chosen))


def scenes(rows: DataFrame) -> Html:
    """Return one row for each scene: both classes' scores, overlap and spread of their maps, and its origin.

    Args:
        rows: The table ``competing``.
    """
    chosen = ordered(rows, SCENE)
    if chosen.empty:
        return Html()
    first = chosen.iloc[0]
    head = [["picture", "classes", "IoU", "rank corr.", "cosine", "half of the magnitude on"]]
    body: list[list[object]] = [
        [
            Html(str(row.kind), element("small", f" {row.image_id}")),
            _scores(row),
            _decimal(row.iou),
            _decimal(row.rank_correlation),
            _decimal(row.cosine),
            f"{percent(row.half_mass_a)}, {percent(row.half_mass_b)}",
        ]
        for row in chosen.itertuples()
    ]
    blur = f", blurred by {first['blur']:g} pixels," if first["blur"] else ""
    text = (
        f"Overlap of the regions of both classes (intersection over union of the {first['keep']:.0%} of the "
        f"pixels with the largest magnitude{blur} by chance {first['chance_iou']:.2f}), rank correlation of "
        "the magnitudes, cosine of the signed maps, the share of pixels that holds half of each map "
        f"({count(len(chosen), 'picture')})."
    )
    return Html(table(head, body, text), _origins(chosen))
