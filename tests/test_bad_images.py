"""One picture that a network stumbles over: its rows fail and say why, every other row is as without it."""

import numpy as np
import pandas as pd
import pytest
import torch
from bad_images_world import METHODS, SIZE, STAGES, explained, images, judged, network

from curvelens import tables
from curvelens.datasets._photographs import read_picture
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.experiments import attacks, judging_grids, path, path_pair, rows, selection
from curvelens.sections.judging import Grids
from curvelens.store import ImageSet, RegressionSet
from curvelens.summaries.attacks import ATTACK_CHOICES

BAD = "own/1"


def others(table):
    return table[table["image_id"] != BAD].drop(columns="seconds").reset_index(drop=True)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3], ids=["logits", "gradient"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_bad_image_fails_alone(stage, epsilon):
    """Either the network says NaN of it, or something finite whose gradient is NaN."""
    made = STAGES[stage](network(epsilon), images())
    spoiled = made[made["image_id"] == BAD]
    assert (made.loc[made["image_id"] != BAD, "status"] == "ok").all()
    if epsilon == 0:
        assert set(spoiled["status"]) == {"failed"}
        assert spoiled["error"].str.contains("logits: 3 of 3 values are not finite").all()
    for error in spoiled.loc[spoiled["status"] == "failed", "error"]:
        assert "finite" in error
        assert "\n" not in error
    fine = spoiled[spoiled["status"] == "ok"].select_dtypes("float")
    assert not np.isinf(fine.to_numpy(float)).any()


@pytest.mark.parametrize("stage", [name for name in STAGES if name != "competing"])
def test_the_others_are_as_without_it(stage):
    """All but the choice of images among several, which is another one where there is one less."""
    without = images(flat=None).subset([0, 2, 3])
    one, two = (others(STAGES[stage](network(0.0), some)) for some in (images(), without))
    pd.testing.assert_frame_equal(one, two)


def test_a_gradient_that_is_not_finite_fails_wherever_it_is_used():
    """Smoothing never looks at the flat picture itself, and succeeds; what differentiates there does not."""
    made = STAGES["explanations"](network(1e-3), images())
    status = made[made["image_id"] == BAD].set_index("method")["status"]
    assert status.to_dict() == {"gradient": "failed", "caso": "failed", "smoothgrad": "ok", "occlusion": "ok"}
    arrays, _ = explained(network(1e-3), images())["gradient"]
    assert np.isnan(arrays["attribution"][1]).all()
    assert np.isfinite(arrays["attribution"][[0, 2, 3]]).all()


def test_attacks_along_a_gradient_that_is_not_finite_fail():
    choices = tables.frame([], ATTACK_CHOICES)
    pgd = {"steps": 2, "restarts": 1, "relative_step": 0.5}
    made = attacks.attack_images(
        network(1e-3),
        images(),
        split="test",
        magnitudes=[0.5],
        choices=choices,
        methods=["H+G", "PGD"],
        pgd=pgd,
    )
    assert made.loc[made["status"] == "failed", "image_id"].unique().tolist() == [BAD]


def test_a_map_that_failed_is_not_judged():
    some = images(flat=None)
    made = judged(network(1e-3), some, missing=("gradient", "own/2"))
    failed = made[made["status"] == "failed"]
    assert set(zip(failed["image_id"], failed["method"], strict=True)) == {("own/2", "gradient")}
    assert set(made["method"]) >= set(METHODS)


# ---------------------------------------------------------------- where images are chosen


def test_a_bad_image_is_not_chosen(caplog):
    right = selection.correctly_classified(network(0.0), images())
    assert right.tolist() == [True, False, True, True]
    assert "logits of 1 of 4 images are not finite; they are not chosen: own/1" in caplog.text
    some = ImageSet(images().images, np.array([0, 0, 1, 1]), images().ids)
    found = path_pair.choose_pair(network(0.0), relabelled(some))
    assert 1 not in found
    with pytest.raises(ConfigError, match="classes are classified correctly"):
        judging_grids.grids(network(0.0), relabelled(some), Grids(shape=(3, 3), confidence=0.0))


def relabelled(some):
    """Images labelled as the network says, so that all are right; the flat one gets class 0."""
    found, _ = rows.classify(network(0.0), some)
    return ImageSet(some.images, found.prediction.numpy(), some.ids)


def test_a_path_over_a_bad_image_is_refused():
    some = images()
    for epsilon, told in ((0.0, "logits: 3 of"), (1e-3, "gradient: 192 of 192 values are not finite")):
        with pytest.raises(ModelError, match=told):
            path.path(network(epsilon), ImageSet(some.images, np.arange(4) % 3, some.ids), 1, 2, steps=3)


# ---------------------------------------------------------------- tables and files


def test_a_row_with_a_wild_number_becomes_a_failed_one():
    table = tables.Table(
        "t", "d.",
        {
            **tables.IMAGE_COLUMNS,
            "a": tables.Column(float, "Must be there."),
            "b": tables.Column(float, "May be missing.", nullable=True),
            "c": tables.Column(float, "May be infinite.", finite=False),
            **tables.RUN_COLUMNS,
        },
        ("image_id",),
    )  # fmt: skip
    fine = {"label": 0, "prediction": 0, "confidence": 0.5, "seconds": 1.0, "calls": 1, "status": "ok"}
    nan, inf = float("nan"), float("inf")
    values = {"ok": (1, nan, inf), "x": (np.float32(nan), 1, 1), "y": (1, -inf, 1), "z": (1, 1, nan)}
    given = [
        {**fine, "image_id": name, "a": a, "b": b, "c": c, "error": ""} for name, (a, b, c) in values.items()
    ]
    made = tables.frame(given, table).set_index("image_id")
    assert made["error"].to_dict() == {
        "ok": "",
        "x": "not a finite number: a is nan",
        "y": "not a finite number: b is -inf",
        "z": "not a finite number: c is nan",
    }
    assert made["status"].tolist() == ["ok", "failed", "failed", "failed"]
    assert made["label"].tolist() == [0] * 4
    infinite = made.reset_index().assign(status="ok", b=inf)
    with pytest.raises(DataError, match=r"column b.*inf is not finite"):
        table.validate(infinite)
    with pytest.raises(DataError, match="a is missing for image w, which did not fail"):
        tables.frame([{**fine, "image_id": "w", "c": 1.0, "error": ""}], table)


def test_a_picture_with_values_that_are_not_finite_is_named(tmp_path):
    from PIL import Image

    values = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="3 of 64 grey values are not finite; store it as an 8-bit picture"):
        read_picture(tmp_path / "a.tif", SIZE)


def test_examples_that_are_not_finite_are_counted_and_named():
    inputs = np.zeros((3, 1, 4), np.float32)
    inputs[1, 0, :2] = np.nan
    with pytest.raises(DataError, match=r"inputs: 2 of 12 values are not finite, first of 'b'; remove"):
        RegressionSet(inputs, np.zeros(3, np.float32), ["a", "b", "c"])
    with pytest.raises(DataError, match=r"targets: 1 of 3 values are not finite, first of 'c'; remove"):
        RegressionSet(np.zeros_like(inputs), np.array([0, 0, np.inf], np.float32), ["a", "b", "c"])


def test_float_images_are_not_taken_for_pixels():
    with pytest.raises(DataError, match=r"images must be uint8 .*; scale them to 0\.\.255"):
        ImageSet(np.full((1, 3, 2, 2), np.nan), np.zeros(1, np.int64), ["a"])
    with pytest.raises(ModelError, match="one row of logits an image"):
        rows.classify(torch.nn.Identity(), images())
