"""What spectra and linear regions say of a network: signs, size, geometry, where explanations are unstable.

Every sentence follows from the tables of the stage ``spectra``; the thresholds are those of its verdicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curvelens.figures.inputs import succeeded
from curvelens.figures.spectra import smooth_name
from curvelens.figures.spectra_sharpness import course, near
from curvelens.figures.wording import count, listing, number, percent, plain, sentences
from curvelens.summaries.spectra import ANISOTROPIC, CONCAVE, CONVEX, FLAT, MIXED

if TYPE_CHECKING:
    from pandas import DataFrame

BALANCED = (0.4, 0.6)
"""Between these shares of Σ|λ| neither sign outweighs the other."""
STRONG = 0.5
"""From this relative change of the gradient over a unit of L2 on, curvature is called strong."""

_GEOMETRY = {
    FLAT: "locally flat",
    CONVEX: "locally convex",
    CONCAVE: "locally concave",
    ANISOTROPIC: "strongly anisotropic",
    MIXED: "curved both ways, evenly over directions",
}


def interpret(spectra: DataFrame, sweep: DataFrame | None = None) -> list[str]:
    """Return what the spectra show.

    Args:
        spectra: ``curvelens.summaries.spectra.SPECTRA``, of a smooth and a ReLU network or one of them.
        sweep: ``curvelens.summaries.spectra.SWEEP``, where it was made.

    Returns:
        Paragraphs, plain text; each begins with its claim and a colon.
    """
    rows = succeeded(spectra)
    relu, smooth = rows[rows["activation"] == "relu"], rows[rows["activation"] != "relu"]
    told = [_signs(smooth), _size(smooth), _geometry(smooth), _instability(smooth, relu)]
    if sweep is not None:
        told.append(_limit(succeeded(sweep), relu))
    return [paragraph for paragraph in told if paragraph]


def _signs(rows: DataFrame) -> str:
    mass = rows["positive_mass"].dropna()
    if mass.empty:
        return ""
    median = float(mass.median())
    low, high = BALANCED
    claim = (
        "Both signs weigh alike"
        if low <= median <= high
        else "Positive curvature outweighs: the score bends up more than down"
        if median > high
        else "Negative curvature outweighs: the score bends down more than up"
    )
    means = {name: float(rows[f"{name}_share"].mean()) for name in ("positive", "negative", "near_zero")}
    shares = [f"{percent(share)} {name.replace('_', '-')}" for name, share in means.items()]
    indefinite = float(((rows["largest_eigenvalue"] > 0) & (rows["smallest_eigenvalue"] < 0)).mean())
    saddle = (
        "each image is a saddle, bending up in some directions and down in others"
        if indefinite == 1
        else f"{percent(indefinite)} of the images are saddles"
        if indefinite
        else "no image is a saddle"
    )
    join = "; " if ": " in claim else ": "
    return (
        f"{claim}{join}of Σ|λ| a median {percent(median)} is positive, and of the eigenvalues "
        f"{listing(shares)}; {saddle} ({count(len(mass), 'image')})."
    )


def _size(rows: DataFrame) -> str:
    change = rows["relative_curvature"].dropna()
    if change.empty or not rows["spectral_radius"].any():
        return ""
    median = float(change.median())
    claim = (
        "Curvature is strong"
        if median >= STRONG
        else "Curvature is moderate"
        if median >= 0.1
        else "Curvature is weak"
    )
    order = rows["expansion_order"].dropna()
    checked = (
        f" The numbers hold: the error of the expansion to second order falls with the step to the power "
        f"{number(float(order.median()), 3)} (theory: 3)."
        if len(order) and abs(float(order.median()) - 3) < 0.2
        else f" The expansion to second order does not behave as it should: its error falls with the power "
        f"{number(float(order.median()), 3)} of the step instead of 3."
        if len(order)
        else ""
    )
    return (
        f"{claim}: the largest |λ| has median {number(float(rows['spectral_radius'].median()))} beside a "
        f"gradient norm of {number(float(rows['gradient_norm'].median()))}, so over the segment along the "
        f"leading eigenvector the gradient changes by {percent(median)} of itself.{checked}"
    )


def _geometry(rows: DataFrame) -> str:
    if rows.empty:
        return ""
    verdicts = rows["verdict"].value_counts()
    first, n = str(verdicts.index[0]), int(verdicts.iloc[0])
    rank, d = float(rows["effective_rank"].median()), float(rows["anisotropy"].median())
    others = [f"{_GEOMETRY.get(str(name), str(name))} {k}" for name, k in verdicts.iloc[1:].items()]
    most = "" if n == len(rows) else "mostly "
    around = f"all {n} images" if n == len(rows) else f"{n} of {len(rows)} images (others: {listing(others)})"
    return sentences(
        f"The local geometry is {most}{_GEOMETRY.get(first, first)}: so judged at {around}. In the median",
        f"the largest |λ| is {number(d)} times the mean one, and curvature is spread over an effective "
        f"{number(rank)} directions.",
    )


def _instability(smooth: DataFrame, relu: DataFrame) -> str:
    bend, jump = smooth["gradient_change"].dropna(), relu["gradient_change"].dropna()
    if relu.empty:
        return ""
    crossed, radius = relu["regions_crossed"].dropna(), relu["region_radius"].dropna()
    largest = (relu["largest_gradient_jump"] / relu["gradient_norm"]).dropna()
    zero = float((relu["spectral_radius"] == 0).mean())
    source = (
        "With ReLU the Hessian is exactly zero, and the gradient changes only by jumps at borders of linear "
        "regions: the first lies a median L2 distance of "
        f"{number(float(radius.median()))} away"
        if zero == 1
        else f"With ReLU the Hessian is zero at {percent(zero)} of the images"
    )
    walk = (
        f"the segment crosses {plain(float(crossed.median()))} of them, the gradient changes by "
        f"{percent(float(jump.median()))} of its norm, at one border by at most "
        f"{percent(float(largest.median()))}"
        if len(crossed) and len(jump)
        else ""
    )
    if bend.empty or jump.empty:
        return f"Explanations are unstable where linear regions end: {source}; {walk}." if walk else ""
    ratio = float(jump.median()) / float(bend.median()) if bend.median() > 0 else float("inf")
    claim = (
        "The ReLU network's explanations are the less stable ones"
        if ratio > 1.25
        else f"The {smooth_name(smooth)} network's explanations are the less stable ones"
        if ratio < 0.8
        else "Both networks' explanations are about as stable"
    )
    turning = "with SoftPlus" if smooth_name(smooth) == "SoftPlus" else "in the curved one"
    many = (
        " Many small jumps there do what curvature does here."
        if len(crossed) and crossed.median() >= 10 and largest.median() < 0.5 * jump.median()
        else ""
    )
    return (
        f"{claim}, for different reasons: {turning} the gradient turns steadily, by "
        f"{percent(float(bend.median()))} of its norm over the segment. {source}; {walk}.{many}"
    )


def _limit(sweep: DataFrame, relu: DataFrame) -> str:
    rows = sweep[sweep["series"] == "sharpness"]
    if rows.empty:
        return ""
    run, sharpest = course(rows), float(rows["beta"].max())
    share = {0.0: "it has not vanished at any image", 1.0: "nothing is left of it at any image"}
    left = share.get(run["zero"], f"nothing is left of it at {percent(run['zero'])} of the images")
    gone = f"at β = {plain(sharpest)} {left}"
    if run["top"] > 2 * max(run["first"], run["last"]):
        claim = "SoftPlus curvature turns into ReLU's borders by concentrating"
        top = f"{number(run['top'])} at β = {plain(run['at'])}"
        how = f"the median spectral radius rises to {top} and then falls"
    elif run["last"] >= run["first"]:
        claim = "Sharper SoftPlus curves more, not less"
        how = f"the median spectral radius rises from {number(run['first'])} to {number(run['last'])}"
    else:
        claim = "Sharper SoftPlus curves less"
        how = f"the median spectral radius falls from {number(run['first'])} to {number(run['last'])}"
    fewer = "fewer" if run["rank"] < run["first_rank"] else "no fewer"
    return (
        f"{claim}: {how}; {gone}. It is carried by {fewer} directions (effective rank "
        f"{number(run['first_rank'])} at the smoothest, {number(run['rank'])} at the sharpest), while the "
        f"gradient lies {near(run['first_deviation'])} of its norm from the ReLU network's at the smoothest "
        f"and {near(run['deviation'])} at the sharpest."
    )
