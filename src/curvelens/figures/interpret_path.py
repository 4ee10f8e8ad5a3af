"""What changes along a path between two images, abruptly or gradually, in words that follow from its
table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from curvelens.figures.wording import count, listing, number, percent, sentences
from curvelens.summaries.path import METHODS

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ABRUPT = 1 / 3
"""From this share of all change on a single step on, a curve is called abrupt."""
TOLERANCE = 0.1
"""A first-order prediction holds while its error is at most this share of the range of what it predicts."""
_ROUNDING = 1e-4  # of single precision, in second differences
_SPOKEN = {"gradient": "the gradient", "smoothgrad": "SmoothGrad", "vargrad": "VarGrad"}


def name_of(index: float, names: Sequence[str]) -> str:
    """Return the name of a class without its synonyms, its number where it has no name."""
    return str(names[int(index)]).split(",")[0] if int(index) < len(names) else str(int(index))


def ends(table: DataFrame, names: Sequence[str]) -> tuple[str, str]:
    """Return the names of the classes at the start and at the end of a path."""
    start, end = (name_of(table[column].iloc[0], names) for column in ("start_class", "end_class"))
    return start, end


def switches(table: DataFrame) -> np.ndarray:
    """Return the steps at which another class is predicted than at the step before."""
    return np.flatnonzero(np.diff(table["prediction"].to_numpy(int))) + 1


def interpret(table: DataFrame, names: Sequence[str]) -> list[str]:
    """Return what the path shows: prediction, explanations, curvature, and what first order missed.

    Args:
        table: ``curvelens.summaries.path.PATH`` of one path.
        names: Class names.

    Returns:
        Paragraphs, plain text; each begins with its claim and a colon.
    """
    told = (_prediction(table, names), _explanations(table), _curvature(table), _finite(table, names))
    return [paragraph for paragraph in told if paragraph]


def _where(table: DataFrame, step: int) -> str:
    t = table["t"].to_numpy(float)
    return f"between t = {t[step - 1]:.2f} and {t[step]:.2f}"


def _prediction(table: DataFrame, names: Sequence[str]) -> str:
    start, end = ends(table, names)
    change = table["prediction_change"].to_numpy(float)[1:]
    if not change.size or change.sum() == 0:
        return "The prediction does not change along the path: all points have the same probabilities."
    largest = int(change.argmax())
    share = change[largest] / change.sum()
    where = _where(table, largest + 1)
    how = (
        f"The prediction changes abruptly: {percent(share)} of all change of the probabilities falls on one "
        f"of {count(len(change), 'step')}, {where}"
        if share >= ABRUPT
        else f"The prediction changes gradually: no step has more than {percent(share)} of all change of the "
        f"probabilities ({where})"
    )
    values = [table[f"{name}_probability"].iloc[[0, -1]].tolist() for name in ("start", "end")]
    (a, b), (c, d) = values
    ranges = (
        f"{start} goes from {percent(a)} to {percent(b)}, that of {end} from {percent(c)} to {percent(d)}"
    )
    known = {int(table[column].iloc[0]) for column in ("start_class", "end_class")}
    between = [k for k in table["prediction"].unique() if k not in known]
    others = [name_of(k, names) for k in between]
    points = int(table["prediction"].isin(between).sum())
    told = listing([*others[:3], *([f"{len(others) - 3} more"] if others[3:] else [])])
    passed = (
        f"At {count(points, 'point')} in between the network predicts neither, but {told}." if others else ""
    )
    times = len(switches(table))
    return sentences(
        f"{how}. The probability of {ranges}; the predicted class",
        f"changes {'once' if times == 1 else f'{times} times'} on the way." if times else "never changes.",
        passed,
    )


def _explanations(table: DataFrame) -> str:
    moves = {name: table[f"{name}_distance"].dropna() for name in METHODS}
    moves = {name: steps for name, steps in moves.items() if len(steps)}
    if not moves:
        return ""
    medians = {name: float(steps.median()) for name, steps in moves.items()}
    calm, restless = min(medians, key=lambda k: medians[k]), max(medians, key=lambda k: medians[k])
    turns = {name: _degrees(float(table[f"{name}_change"].median())) for name in moves}
    size = listing(
        f"{_SPOKEN[name]} {percent(value)} ({turns[name]:.0f}°)" for name, value in medians.items()
    )
    jumps = {name: np.flatnonzero(table[f"{name}_jump"].to_numpy(bool)) for name in moves}
    total, at = sum(map(len, jumps.values())), set(switches(table).tolist())
    together = sum(step in at for steps in jumps.values() for step in steps.tolist())
    if medians[calm] == medians[restless]:
        claim = "All explanations change alike from step to step"
    else:
        claim = (
            f"{_SPOKEN[restless][0].upper()}{_SPOKEN[restless][1:]} changes most from step to step, "
            f"{_SPOKEN[calm]} least"
        )
    return sentences(
        f"{claim}: of the map's norm a step moves, in the median, {size}.",
        _coincidence(total, together, len(at), {name: len(steps) for name, steps in jumps.items()}),
        _company(at, set(np.concatenate(list(jumps.values())).tolist())),
    )


def _coincidence(total: int, together: int, changes: int, jumps: dict[str, int]) -> str:
    """Say whether the explanations' jumps fall where the prediction changes."""
    if not total:
        quiet = "No explanation jumps: each changes by about as much at every step"
        return f"{quiet}, also where another class is predicted." if changes else f"{quiet}."
    found = f"They jump {'once' if total == 1 else f'{total} times'}: " + listing(
        f"{_SPOKEN[name]} {n}" for name, n in jumps.items() if n
    )
    if together == total:
        return (
            f"{found}, {'' if total == 1 else 'always '}where another class is predicted, whose logit is "
            "then explained instead: the jump is that of the question, not of the picture."
        )
    apart = total - together
    beside = f"{apart} of these {total}" if together else "all of them" if total > 1 else "it"
    return (
        f"{found}; {beside} {'falls' if apart == 1 else 'fall'} where the predicted class stays the same: "
        "the explanation changes abruptly although the decision does not."
    )


def _company(changes: set[int], jumps: set[int]) -> str:
    """Say how many changes of the prediction come with a jump of some explanation."""
    if not changes or not jumps:
        return ""
    with_jump = len(changes & jumps)
    if with_jump == len(changes):
        return "Every change of the prediction comes with a jump."
    if not with_jump:
        return "No change of the prediction comes with a jump."
    return f"Of {len(changes)} changes of the prediction {with_jump} come with a jump."


def _curvature(table: DataFrame) -> str:
    exact, steps = table["curvature"].to_numpy(float), table["step_curvature"].to_numpy(float)
    t, told = table["t"].to_numpy(float), []
    if np.isnan(steps).all():
        return ""
    gap = float(table["distance"].iloc[1])
    peak = int(np.nanargmax(np.abs(steps)))
    finite = f"{number(steps[peak])} per squared unit of L2 at t = {t[peak]:.2f}"
    if not exact.any() and abs(steps[peak]) * gap**2 <= _ROUNDING * np.abs(table["value"]).max():
        told.append(
            "The path is not curved: neither at its points nor between them does the slope of the explained "
            f"logit change. {_borders(table)}"
        )
    elif not exact.any():
        told.append(
            "At no point is there curvature, between the points there is: the Hessian of the explained logit "
            f"is zero along the path at all {count(len(exact), 'point')}, as inside every linear region, yet "
            "over neighbouring points the slope changes as under a curvature of up to "
            f"{finite}. {_borders(table)}"
        )
    else:
        at = int(np.abs(exact).argmax())
        ratio = abs(exact[at]) / abs(steps[peak]) if steps[peak] else np.inf
        close = "agrees with" if 0.5 <= ratio <= 2 else "is larger than" if ratio > 2 else "is smaller than"
        told.append(
            f"Curvature at the points {close} that between them: the second derivative of the explained "
            f"logit along the path is at most {number(exact[at])} at t = {t[at]:.2f}, the mean over "
            f"neighbouring points {finite}. {_borders(table)}"
        )
    loss = table["loss_curvature"].to_numpy(float)
    if loss.max() > 0:
        top = int(loss.argmax())
        near = any(abs(top - step) <= 1 or top == step - 1 for step in switches(table))
        doubt = percent(float(table["confidence"].iloc[top]))
        told.append(
            f"The loss curves most at t = {t[top]:.2f} ({number(loss[top])}), "
            + ("next to a change of the prediction" if near else "away from any change of the prediction")
            + f", where the confidence is {doubt}."
        )
    return sentences(*told)


def _borders(table: DataFrame) -> str:
    crossed, share = table["regions_crossed"].dropna(), table["switched_share"].dropna()
    if len(crossed):
        return f"The path crosses {int(crossed.sum()):,} borders of linear regions."
    if len(share):
        return (
            f"From point to point {percent(float(share.median()), 1)} of the units of ReLU type switch their "
            f"linear piece (at most {percent(float(share.max()), 1)})."
        )
    return ""


def reach(table: DataFrame, method: str) -> tuple[int, float]:
    """Return up to which step the first-order prediction at the start holds, and its error at the end.

    Args:
        table: ``curvelens.summaries.path.PATH`` of one path.
        method: ``gradient`` or ``smoothgrad``.

    Returns:
        The last step before the error first exceeds :data:`TOLERANCE` of the score's range; the error at the
        end as a share of that range, NaN where the score is constant.
    """
    score = table["start_score"].to_numpy(float)
    error = np.abs(table[f"start_score_from_{method}"].to_numpy(float) - score)
    span = float(np.ptp(score))
    beyond = np.flatnonzero(error > TOLERANCE * span + 1e-9 * np.abs(score).max())
    return (int(beyond[0]) - 1 if beyond.size else len(score) - 1), error[-1] / span if span else np.nan


def _finite(table: DataFrame, names: Sequence[str]) -> str:
    score, last = table["start_score"].to_numpy(float), len(table) - 1
    held = {name: reach(table, name)[0] for name in ("gradient", "smoothgrad")}
    predicted = {
        name: float(table[f"start_score_from_{name}"].iloc[-1] - score[0])
        for name in ("gradient", "smoothgrad")
    }
    whose = name_of(table["prediction"].iloc[0], names)
    both = f"the gradient says {number(predicted['gradient'])}, SmoothGrad {number(predicted['smoothgrad'])}"
    if min(held.values()) == last:
        claim = "For this finite change first order was enough"
    elif max(held.values()) == last:
        better = max(held, key=lambda k: held[k])
        claim = f"For this finite change only {_SPOKEN[better]} was enough"
    else:
        claim = "A local explanation does not answer for a finite change"
    until = listing(f"{_until(table.iloc[step], step)} for {_SPOKEN[name]}" for name, step in held.items())
    return sentences(
        f"{claim}: by the end of the path the logit of {whose} changes by {number(score[-1] - score[0])}, of "
        f"which, from the start, {both}.",
        f"First order is right, within a tenth of the range that the logit covers, {until}.",
    )


def _until(row: Series, step: int) -> str:
    if step == 0:
        return "at no further point"
    return f"up to t = {row['t']:.2f} (L2 distance {number(float(row['distance']))})"


def _degrees(change: float) -> float:
    """Angle of a change ``1 - cosine``."""
    return float(np.degrees(np.arccos(np.clip(1 - change, -1, 1))))
