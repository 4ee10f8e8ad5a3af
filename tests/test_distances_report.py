"""What is drawn and said of CASO against CAFO: running median, rank correlation, tables of the report."""

import numpy as np
import pandas as pd
import pytest
import report_world as world

from curvelens.figures import distances as figure
from curvelens.figures import style
from curvelens.reporting import distances as report
from curvelens.summaries import distances as summaries


def test_the_running_median_is_that_of_neighbours_in_confidence():
    rows = pd.DataFrame({"confidence": np.linspace(0.9, 0.1, 12), "distance": np.arange(12.0) ** 2})
    doubt, median = figure.running_median(rows.sample(frac=1, random_state=1))
    assert figure.window(12) == 5
    # From the least confident: windows of 5 have their middle at the third, fourth, ... image.
    np.testing.assert_allclose(median, np.arange(9, 1, -1.0) ** 2)
    np.testing.assert_allclose(doubt, 1 - np.linspace(0.9, 0.1, 12)[9:1:-1])
    assert not len(figure.running_median(rows.head(9))[0])


def test_the_running_median_is_drawn_where_there_are_images_enough():
    for count, lines in ((40, 1), (6, 0)):
        drawn = figure.draw({"distances": world.distances(count)}, style.NARROW)
        labels = [line.get_label() for line in drawn.axes[0].lines]
        assert sum(str(label).startswith("median of") for label in labels) == lines


@pytest.mark.parametrize(
    ("distance", "told"),
    [
        (lambda n, _: np.linspace(0.5, 0.1, n), "as Fig. 1 of Singla et al. (2019) shows it"),
        (lambda n, _: np.linspace(0.1, 0.5, n), "the opposite of what Fig. 1"),
        (lambda n, random: random.uniform(0.1, 0.5, n), "too few images to tell"),
    ],
)
def test_the_rank_correlation_is_compared_with_the_papers_figure(distance, told):
    n, random = 30, np.random.default_rng(3)
    rows = world.distances(n).assign(confidence=np.linspace(0.2, 0.9, n), distance=distance(n, random))
    caption = figure.caption({"distances": rows})
    assert told in caption
    r, low, high = summaries.rank_correlation(rows["confidence"].to_numpy(), rows["distance"].to_numpy())
    assert f"is {r:.2g}".replace("-", "−") in caption or abs(r) == 1
    assert low <= r <= high


def test_passes_are_told_as_they_are_counted():
    rows = world.distances(10).assign(full_calls=1000, calls=5, solving_calls=2)
    caption = figure.caption({"distances": rows})
    assert "took 5.0 reverse passes on average, 200 times fewer" in caption
    assert "2 passes at most beyond them" in caption


def test_the_reports_tables_have_the_summarys_numbers():
    rows = world.distances(20, failed=1).assign(full_calls=1000, calls=8, solving_calls=3)
    summary = summaries.summarise(rows, groups=4)
    page = str(report.networks({"<b>net": (summary, rows)}))
    assert "&lt;b&gt;net" in page
    for cell in ("8.00", "125 ×", "closed form, whole factor"):
        assert cell in page
    assert report.correlation(summary.iloc[0]) in page
    assert report.correlation(summary.iloc[1].fillna(np.nan)) != ""
    groups = str(report.by_confidence(summary))
    assert groups.count("<tr") == 1 + 4
    assert summaries.summarise(rows.head(3)).pipe(lambda few: report.correlation(few.iloc[0])) == "–"
