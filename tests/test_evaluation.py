"""Accuracy, confusion and calibration against scikit-learn, by hand, and as they are drawn and told."""

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation_world import NAMES, drawn, rows

from curvelens import figures, store, tables
from curvelens.config import load
from curvelens.experiments.evaluation import predictions
from curvelens.figures.evaluation import MOST_CLASSES, caption, classes, errors, finding
from curvelens.reporting.evaluation import by_class, misclassified, networks
from curvelens.store import ImageSet
from curvelens.summaries.evaluation import (
    CONFUSION,
    EVALUATION,
    PREDICTIONS,
    RELIABILITY,
    confusion,
    summarise,
)


def test_a_network_is_told_what_it_says():
    """Logits that are the pixels themselves, against torch's own cross-entropy in double precision."""
    pixels = np.array([[255, 0, 51], [0, 102, 204], [51, 51, 51], [0, 255, 0]], np.uint8).reshape(4, 3, 1, 1)
    data = ImageSet(pixels, np.array([0, 1, -1, 1]), ["a", "b", "c", "d"])
    model = torch.nn.Flatten().eval()

    class Fails(torch.nn.Module):
        def forward(self, x):
            logits = model(x)
            return logits / (logits[:, :1] != 0) if bool((x[0, 1] == 1).all()) else logits

    table = predictions(Fails(), data, origins={"a": "https://x.org/?a&b; CC0"})
    logits = torch.from_numpy(pixels.reshape(4, 3) / 255.0)
    p = torch.softmax(logits, 1).numpy()
    assert table["prediction"].tolist()[:2] == [0, 2]
    np.testing.assert_allclose(table["confidence"][:3].astype(float), p[:3].max(1), rtol=1e-6)
    expected = torch.nn.functional.cross_entropy(logits[:2], torch.tensor([0, 1]), reduction="none")
    np.testing.assert_allclose(table["loss"][:2].astype(float), expected, rtol=1e-6)
    np.testing.assert_allclose(table["entropy"][:3].astype(float), -(p * np.log(p)).sum(1)[:3], rtol=1e-6)
    assert table["correct"].tolist()[:2] == [True, False]
    assert table["correct"].isna().tolist() == [False, False, True, True]
    assert table["origin"][0] == "https://x.org/?a&b; CC0"
    assert table["origin"].isna()[1]
    assert table["status"].tolist() == ["ok", "ok", "ok", "failed"]
    summary, _ = summarise(table)
    assert summary[["images", "unlabelled", "right"]].iloc[0].tolist() == [2, 1, 1]


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_reliability_is_scikit_learns_curve(bins):
    from sklearn.calibration import calibration_curve

    confidence, right, labels = drawn()
    confidence[:3] = [0.5, 1.0, 0.6]  # edges of bins
    summary, reliability = summarise(rows(confidence, right, labels), bins)
    share, mean = calibration_curve(right, confidence, n_bins=bins)
    filled = reliability[reliability["images"] > 0]
    np.testing.assert_allclose(filled["accuracy"], share, rtol=1e-12)
    np.testing.assert_allclose(filled["mean_confidence"], mean, rtol=1e-12)
    assert reliability["images"].sum() == 500
    weights = filled["images"] / 500
    assert summary["calibration_error"][0] == pytest.approx((weights * np.abs(share - mean)).sum(), rel=1e-12)


def test_the_interval_is_wilsons_formula():
    confidence, right, labels = drawn(200)
    row = summarise(rows(confidence, right, labels))[0].iloc[0]
    n, p, z = 200, right.mean(), 1.959963984540054
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = (middle + np.array([-half, half])) / (1 + z**2 / n)
    np.testing.assert_allclose([row["accuracy_low"], row["accuracy_high"]], ends, rtol=1e-9)
    assert row["accuracy"] == right.mean()


def test_chance_is_what_a_calibrated_network_would_show():
    """One image: |right − p| is 1 − p with probability p, else p, so its mean is 2p(1 − p)."""
    row = summarise(rows([0.8], [True]))[0].iloc[0]
    # 1000 draws of a spread of 0.24: a standard error of 0.0076.
    assert row["chance_calibration_error"] == pytest.approx(0.32, abs=0.025)
    assert row["chance_calibration_error_high"] == pytest.approx(0.8, abs=1e-9)
    # A network that is calibrated by construction stays below the 95 % quantile in about 95 % of all samples,
    # one that is surer than it is right does not.
    for power, low, high in ((1.0, 0.8, 1.0), (3.0, 0.0, 0.1)):
        below = []
        for seed in range(25):
            one = summarise(rows(*drawn(150, seed, power)), seed=seed)[0].iloc[0]
            below.append(one["calibration_error"] <= one["chance_calibration_error_high"])
        assert low <= np.mean(below) <= high


def test_confusion_is_scikit_learns_matrix():
    from sklearn.metrics import confusion_matrix, precision_score, recall_score

    confidence, right, labels = drawn(300)
    table = rows(confidence, right, labels)
    found = confusion(table, NAMES)
    matrix = np.zeros((3, 3), int)
    matrix[found["label"], found["prediction"]] = found["images"]
    np.testing.assert_array_equal(matrix, confusion_matrix(table["label"], table["prediction"]))
    assert (found["label_name"] == np.array(NAMES)[found["label"]]).all()
    shown = str(by_class(found))
    for score in (recall_score, precision_score):
        for share in score(table["label"], table["prediction"], average=None):
            assert f"{100 * share:.1f}%" in shown
    assert errors(found)["images"].is_monotonic_decreasing


def test_no_labels_give_no_accuracy():
    table = rows([0.5], [True])
    table["label"], table["correct"] = -1, pd.NA
    summary, reliability = summarise(table)
    assert (len(summary), len(confusion(table, NAMES)), reliability["images"].sum()) == (0, 0, 0)
    parts = {"evaluation": summary, "reliability": reliability, "confusion": confusion(table, NAMES)}
    assert finding(parts) == ""
    assert "No test image has a label" in caption(parts)
    assert figures.get("evaluation")(parts, figures.NARROW)


@pytest.mark.parametrize(
    ("confidence", "share", "told"),
    [
        (0.9, 0.9, "Confidence is as good as its word"),
        (0.95, 0.6, "The network is surer than it is right"),
        (0.5, 0.9, "The network is right more often than it is sure"),
    ],
)
def test_the_finding_follows_from_the_numbers(confidence, share, told):
    right = np.arange(200) < 200 * share
    table = rows(np.full(200, confidence), right)
    summary, reliability = summarise(table)
    parts = {"evaluation": summary, "reliability": reliability, "confusion": confusion(table, NAMES)}
    text = finding(parts)
    assert text.startswith(told)
    assert f"right for {100 * share:.1f}%" in text
    assert f"confidence of {100 * confidence:.1f}%" in text
    assert "(n = 200)" in text


def test_both_errors_can_cancel():
    confidence = np.repeat([0.95, 0.55], 100)
    right = np.concatenate([np.arange(100) < 70, np.arange(100) < 80])
    table = rows(confidence, right)
    summary, reliability = summarise(table)
    parts = {"evaluation": summary, "reliability": reliability, "confusion": confusion(table, NAMES)}
    assert finding(parts).startswith("Confidence is off at some levels, though not on average")


def test_names_show_as_text_in_figures_and_tables(tmp_path):
    """File names and class names with HTML, quotes, formulas and other scripts."""
    ids = ["""image_folder/<img src=x onerror=alert(1)> "q" 'a' 猫.png""", "b", "c", "d"]
    table = rows([0.9, 0.8, 0.7, 0.6], [False, True, True, False], [0, 1, 2, 2], ids)
    table["origin"] = table["image_id"].map({ids[0]: "https://x.org/?a=1&b=<2>; CC0"})
    table = PREDICTIONS.validate(table)
    summary, reliability = summarise(table)
    found = confusion(table, NAMES)
    for name, frame, described in (
        ("evaluation", summary, EVALUATION),
        ("reliability", reliability, RELIABILITY),
        ("confusion", found, CONFUSION),
    ):
        tables.write(frame, described, tmp_path / f"{name}.parquet")
    inputs = {name: tmp_path / f"{name}.parquet" for name in ("evaluation", "reliability", "confusion")}
    files = figures.draw("evaluation", inputs, tmp_path / "evaluation.svg")
    assert b"<script>" not in files[0].read_bytes()
    assert "größer" in store.load_json(files[2])["caption"] + store.load_json(files[2])["alt"]
    html = str(misclassified(table, found)) + str(by_class(found)) + str(networks({"<b>": summary}))
    for text in ("<script>", "<img", "<b><b>", "b=<2>"):
        assert text not in html
    for text in ("&lt;img src=x onerror=alert(1)&gt;", "猫", "https://x.org/?a=1&amp;b=&lt;2&gt;; CC0"):
        assert text in html
    assert str(misclassified(rows([0.9], [True]), found)) == ""


def test_many_classes_are_shown_by_their_errors():
    n = MOST_CLASSES + 4
    labels = np.arange(n)
    table = rows(np.full(n, 0.6), np.ones(n, bool), labels)
    table.loc[0, ["prediction", "correct"]] = [1, False]
    summary, reliability = summarise(table)
    names = [f"class {i}" for i in range(n)]
    parts = {"evaluation": summary, "reliability": reliability, "confusion": confusion(table, names)}
    assert len(classes(parts["confusion"])) == n
    figure = figures.get("evaluation")(parts, figures.WIDE)
    labels = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert labels == ["class 0\n→ class 1"]
    assert "the pairs of classes that are confused most often" in caption(parts)


def test_the_stage_is_optional_and_checked():
    raw = {
        "datasets": {"digits": {"source": "sklearn_digits"}},
        "models": {"m": {"dataset": "digits"}},
        "experiments": {"e": {"model": "m"}},
    }
    assert load(raw).experiments["e"].evaluation is None
    raw["experiments"]["e"]["evaluation"] = {}
    chosen = load(raw).experiments["e"].evaluation
    assert (chosen.images, chosen.bins) == (None, 10)
