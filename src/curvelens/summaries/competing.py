"""The table of two classes' explanations of one image, and what it says in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures.maps import NAMES
from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, Column, schema

if TYPE_CHECKING:
    from pandas import DataFrame

MISTAKE, RIGHT, SCENE = PARTS = ("mistake", "right", "scene")
OPPOSED, ALIKE = -0.5, 0.5  # cosines beyond which two maps are called opposed, or alike

COMPETING = schema(
    "competing",
    "Explanations of two classes on the same image, compared: of the predicted and the true class where they "
    "differ, and of both classes on scenes.",
    {
        **IMAGE_COLUMNS,
        "label_name": Column(str, "Name of the true class; empty where it is not known."),
        "part": Column(
            str,
            "`mistake`: a is predicted, b true; `right`: a is predicted and true, b the runner-up; `scene`: "
            "both classes on a picture chosen for what it shows.",
            isin=PARTS,
        ),
        "kind": Column(str, "What is special about a scene; the part for other images."),
        "place": Column(int, "Place of the image in its part, in the order shown.", ge=0),
        "method": Column(str, "Method of explanation."),
        "parameters": Column(str, "Its parameters, JSON."),
        "scalar": Column(str, "The number of a class that is explained."),
        "class_a": Column(int, "Index of the first class.", ge=0),
        "class_b": Column(int, "Index of the second class.", ge=0),
        "name_a": Column(str, "Name of the first class."),
        "name_b": Column(str, "Name of the second class."),
        "score_a": Column(float, "The scalar of the first class.", unit="of the scalar"),
        "score_b": Column(float, "The scalar of the second class.", unit="of the scalar"),
        "probability_a": Column(float, "SoftMax probability of the first class.", ge=0, le=1 + 1e-6),
        "probability_b": Column(float, "SoftMax probability of the second class.", ge=0, le=1 + 1e-6),
        "cosine": Column(
            float, "Cosine of the two maps, channels summed.", nullable=True, ge=-1 - 1e-9, le=1 + 1e-9
        ),
        "rank_correlation": Column(
            float, "Spearman's correlation of their magnitudes.", nullable=True, ge=-1 - 1e-9, le=1 + 1e-9
        ),
        "common_mass": Column(
            float,
            "Sum of the smaller of both magnitudes, each map scaled to sum to one.",
            nullable=True,
            ge=0,
            le=1 + 1e-9,
        ),
        "iou": Column(
            float, "Intersection over union of the regions kept.", nullable=True, ge=0, le=1 + 1e-9
        ),
        "chance_iou": Column(float, "The same for two independent regions of that size.", ge=0, le=1),
        "half_mass_a": Column(
            float,
            "Smallest share of pixels that holds half of the first map's magnitude, blurred.",
            nullable=True,
            ge=0,
            le=1,
        ),
        "half_mass_b": Column(float, "The same of the second map.", nullable=True, ge=0, le=1),
        "keep": Column(float, "Share of pixels kept in a region: those of largest magnitude.", gt=0, lt=1),
        "blur": Column(float, "Blur of the magnitudes before.", unit="pixels", ge=0),
        "origin": Column(str, "Where the picture comes from."),
        "test_images": Column(int, "Labelled test images from which mistakes were taken.", ge=0),
        "test_errors": Column(int, "How many of them are misclassified.", ge=0),
        **RUN_COLUMNS,
    },
    keys=("image_id", "part", "method"),
)


def ordered(table: DataFrame, *parts: str) -> DataFrame:
    """Return the rows of some parts that did not fail, in the order in which they are shown."""
    rows = table[(table["status"] == "ok") & table["part"].isin(parts)]
    rank = rows["part"].map({part: number for number, part in enumerate(PARTS)})
    return rows.assign(rank=rank).sort_values(["rank", "place", "method"]).drop(columns="rank")


def relation(cosine: float) -> str:
    """Say how two maps with this cosine stand to each other."""
    if cosine != cosine:
        return "cannot be compared"
    return "opposed" if cosine < OPPOSED else "alike" if cosine > ALIKE else "mostly unrelated"


def decimal(value: float) -> str:
    """Return a number with two decimals and a true minus sign."""
    return f"{value:.2f}".replace("-", "−")


def short(image_id: str) -> str:
    """Return an image's name without its data set's."""
    return image_id.rpartition("/")[2] or image_id


def interpret_mistakes(table: DataFrame) -> list[str]:
    """Say what the maps of the predicted and of the true class have to do with the errors.

    Args:
        table: :data:`COMPETING`.

    Returns:
        Sentences; none where there is no such image.
    """
    rows = ordered(table, MISTAKE, RIGHT)
    if rows.empty:
        return []
    told = [_errors(rows)]
    for method, own in rows.groupby("method", sort=False):
        angle = own["cosine"]
        told.append(
            f"{NAMES.get(method, method)}: the maps of both classes are {relation(angle.median())} (median "
            f"cosine {decimal(angle.median())}, from {decimal(angle.min())} to {decimal(angle.max())}), and "
            f"have {own['common_mass'].median():.0%} of their mass in common (median of {len(own)})."
        )
    mistakes = rows[rows["part"] == MISTAKE]
    if len(mistakes):
        told.append(_failure(mistakes))
    return told


def _errors(rows: DataFrame) -> str:
    images, errors = (int(rows[name].iloc[0]) for name in ("test_images", "test_errors"))
    shown = rows.loc[rows["part"] == MISTAKE, "image_id"].nunique()
    filled = rows.loc[rows["part"] == RIGHT, "image_id"].nunique()
    told = "none can be" if shown == 0 else "all are" if shown == errors else f"{shown} are"
    said = f"The network errs on {errors} of {images} labelled test images, and {told} shown"
    return said + (f"; {filled} on which it was right and least sure fill up." if filled else ".")


def _failure(mistakes: DataFrame) -> str:
    first = mistakes[mistakes["method"] == mistakes["method"].iloc[0]]
    close = int((first["probability_b"] > 0.25).sum())
    share = mistakes["iou"] / mistakes["chance_iou"]
    same = float((share > 2).mean())
    where = (
        "for the most part both scores depend on the same parts of the picture, as if the object had been "
        "seen and misread"
        if same > 0.5
        else "for the most part the score of the wrong class depends on other parts of the picture than that "
        "of the true one"
    )
    return (
        f"Why it erred: in {close} of {len(first)} errors shown the true class had more than a quarter of "
        "the probability. The regions that stand out for the two classes overlap more than twice as much as "
        f"chance in {same:.0%} of the comparisons; {where}."
    )


def interpret_scenes(table: DataFrame) -> list[str]:
    """Compare the scenes with each other.

    Args:
        table: :data:`COMPETING`.

    Returns:
        Sentences; none where there is no scene.
    """
    rows = ordered(table, SCENE)
    rows = rows[rows["iou"].notna()]
    if rows.empty:
        return []
    chance = float(rows["chance_iou"].iloc[0])
    told = [
        f"{row.kind} ({short(row.image_id)}): the regions of {row.name_a} and {row.name_b} overlap by "
        f"{row.iou:.2f} (intersection over union; {row.iou / chance:.1f} times chance), their magnitudes "
        f"correlate in rank by {decimal(row.rank_correlation)}, the signed maps are {relation(row.cosine)} "
        f"(cosine {decimal(row.cosine)}); half of the magnitude lies on {row.half_mass_a:.0%} and "
        f"{row.half_mass_b:.0%} of the pixels."
        for row in rows.itertuples()
    ]
    apart = int((rows["iou"] <= chance).sum())
    overall = (
        f"On {apart} of {len(rows)} pictures the two classes' regions overlap no more than chance. "
        if apart
        else "The two classes' regions overlap more than chance on every picture. "
    )
    if apart < len(rows) / 2:
        overall += (
            "A gradient map, then, does not tell the two classes' evidence apart; it marks pixels to which "
            "the network is sensitive, for either class."
        )
    else:
        overall += "On most, then, each class rests on parts of its own."
    if len(rows) > 1:
        most, least = rows.loc[rows["iou"].idxmax()], rows.loc[rows["iou"].idxmin()]
        medians = rows.groupby("kind", sort=False)["iou"].median()
        by_kind = ", ".join(f"{kind} {value:.2f}" for kind, value in medians.items())
        overall = (
            f"Comparison: overlap is largest in {short(most.image_id)} ({most.kind}, {most.iou:.2f}) and "
            f"smallest in {short(least.image_id)} ({least.kind}, {least.iou:.2f}); the medians by kind are "
            f"{by_kind}. {overall}"
        )
    return [*told, overall]
