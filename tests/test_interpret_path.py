"""What is said of a path follows from its numbers, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from path_world import NAMES, T, table

from curvelens.figures import film_texts, filmstrip, path
from curvelens.figures.interpret_path import interpret, reach, switches
from curvelens.summaries.path import METHODS


def at(step: int, value: float) -> np.ndarray:
    values = np.full(T, 0.2)
    values[0], values[step] = np.nan, value
    return values


def said(**columns: Any) -> str:
    return " ".join(interpret(table(**columns), NAMES))


def test_abrupt_or_gradual():
    told = (
        "changes abruptly: 100% of all change of the probabilities falls on one of 25 steps, between t = 0.48"
    )
    assert f"{told} and 0.52" in said(width=1e-3)
    assert "changes gradually: no step has more than" in said(width=0.2)
    assert "The probability of cat goes from 100% to 0%, that of <b>dog</b> from 0% to 100%" in said(
        width=1e-3
    )
    assert "the predicted class changes once on the way" in said()
    assert "the predicted class never changes." in said(switch=None, width=0.5)
    constant = {"prediction_change": np.r_[np.nan, np.zeros(T - 1)]}
    assert "The prediction does not change along the path" in said(**constant)


def test_classes_in_between_are_named():
    assert "predicts neither" not in said()
    other = np.r_[np.zeros(9, int), np.full(3, 2), np.ones(T - 12, int)]
    told = said(prediction=other)
    assert "At 3 points in between the network predicts neither, but fox $5." in told
    assert "the predicted class changes 2 times" in told


@pytest.mark.parametrize(("calm", "restless"), [("gradient", "vargrad"), ("vargrad", "smoothgrad")])
def test_the_most_and_the_least_restless_explanation(calm, restless):
    values = {f"{name}_distance": at(3, 0.2) for name in METHODS}
    values |= {f"{calm}_distance": at(3, 0.1) / 2, f"{restless}_distance": at(3, 0.4) * 2}
    spoken = {"gradient": "the gradient", "smoothgrad": "SmoothGrad", "vargrad": "VarGrad"}
    start = spoken[restless][0].upper() + spoken[restless][1:]
    assert f"{start} changes most from step to step, {spoken[calm]} least" in said(**values)


def test_jumps_with_and_without_a_change_of_prediction():
    assert "No explanation jumps: each changes by about as much at every step, also where" in said()
    with_it = said(gradient_distance=at(13, 1.5))
    assert "They jump once: the gradient 1, where another class is predicted" in with_it
    assert "Every change of the prediction comes with a jump" in with_it
    without = said(gradient_distance=at(5, 1.5))
    assert "it falls where the predicted class stays the same" in without
    assert "No change of the prediction comes with a jump" in without
    both = said(gradient_distance=at(5, 1.5), vargrad_distance=at(13, 1.5))
    assert "They jump 2 times: the gradient 1 and VarGrad 1; 1 of these 2 falls where the predicted" in both


def test_curvature_at_points_between_them_or_not_at_all():
    assert "At no point is there curvature, between the points there is" in said()
    flat = np.r_[np.nan, np.zeros(T - 2), np.nan]
    assert "The path is not curved" in said(step_curvature=flat)
    assert "Curvature at the points agrees with that between them" in said(curvature=0.3)
    assert "Curvature at the points is larger than that between them" in said(curvature=-3.0)
    assert "Curvature at the points is smaller than that between them" in said(curvature=0.03)
    assert "crosses 100 borders" in said(regions_crossed=[None] + [4] * (T - 1))
    assert "3.0% of the units" in said(regions_crossed=[None] * T)
    assert "next to a change of the prediction" in said()
    peak = np.zeros(T)
    peak[3] = 1
    assert "away from any change of the prediction" in said(loss_curvature=peak)


def test_how_far_first_order_reaches():
    straight = table()
    assert reach(straight, "gradient") == (T - 1, 0)
    assert "For this finite change first order was enough" in said()
    # The score falls by 10; off by more than 1 from t > 0.2 on, by 5 at the end.
    t = np.linspace(0, 1, T)
    off = {"start_score_from_gradient": 10 - 5 * t}
    assert reach(table(**off), "gradient") == (5, pytest.approx(0.5))
    assert "For this finite change only SmoothGrad was enough" in said(**off)
    assert "changes by −10, of which, from the start, the gradient says −5.0, SmoothGrad −10" in said(**off)
    off["start_score_from_smoothgrad"] = 10 + 30 * t
    assert "does not answer for a finite change" in said(**off)
    assert "up to t = 0.20 (L2 distance 4.0) for the gradient and at no further point for SmoothGrad" in said(
        **off
    )


def test_texts_of_film_strip_and_chart_follow_the_table():
    jumping = table(gradient_distance=at(7, 1.5))
    loaded = {"path": jumping, "models": [{"class_names": NAMES}]}
    texts = film_texts.texts(jumping, NAMES)
    assert "to <b>dog</b> between t = 0.48 and 0.52" in texts["caption"]
    assert "Jumps (rings): the gradient at t = 0.28." in texts["caption"]
    assert "No step is a jump" in film_texts.texts(table(), NAMES)["caption"]
    assert film_texts.poster_frame(jumping) == 13
    assert film_texts.poster_frame(table(switch=None)) == T // 2
    assert switches(jumping).tolist() == [13]
    frames = filmstrip.chosen(jumping)
    assert {0, 12, 13, T - 1} <= set(frames)
    assert len(frames) == filmstrip.SHOWN
    assert "In red" in filmstrip.caption(loaded)
    assert "In red" not in filmstrip.caption({**loaded, "path": table(switch=None)})
    assert "first order holds" in path.finding(loaded)
    far = {**loaded, "path": table(start_score_from_gradient=np.full(T, 10.0))}
    assert "does not answer" in path.finding(far)
    assert "t = 0.50" in path.alt(loaded)
