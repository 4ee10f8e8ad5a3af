"""Explanations of two classes on one image: overlap measures, choice of images, maps, figures and words."""

import math

import competing_world
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import jaccard_score
from torch import nn

from curvelens import config, overlap, tables
from curvelens.errors import ArgumentError, ConfigError
from curvelens.experiments.competing import Described, competing
from curvelens.figures import _competing, get, style
from curvelens.reporting import competing as set_for_reading
from curvelens.sections.competing import Competing
from curvelens.store import ImageSet
from curvelens.summaries.competing import (
    COMPETING,
    MISTAKE,
    RIGHT,
    SCENE,
    interpret_mistakes,
    interpret_scenes,
    ordered,
)

SIZE, CLASSES = 6, 3
RNG = np.random.default_rng(0)


def pair(seed=0, shape=(9, 11)):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=shape)
    return a, a * 0.5 + rng.normal(size=shape)


# Measures against other libraries and closed forms.


@pytest.mark.parametrize("share", [0.1, 0.37, 1.0])
def test_regions_are_the_largest_magnitudes(share):
    a, _ = pair()
    mask = overlap.kept(a, share)
    assert mask.sum() == math.ceil(share * a.size)
    assert np.abs(a)[mask].min() >= np.abs(a)[~mask].max(initial=0)


def test_a_blurred_region_is_that_of_scipys_blur():
    from scipy.ndimage import gaussian_filter

    a, _ = pair(1)
    blurred = gaussian_filter(np.abs(a), 1.5, mode="nearest")
    np.testing.assert_array_equal(
        overlap.kept(a, 0.2, 1.5), blurred >= np.sort(blurred, axis=None)[-math.ceil(0.2 * a.size)]
    )


def test_ties_and_zeros():
    assert overlap.kept(np.ones((2, 3)), 0.5).tolist() == [[True] * 3, [False] * 3]
    assert not overlap.kept(np.zeros((2, 3)), 0.5).any()
    sparse = np.zeros((4, 4))
    sparse[1, 2] = -3.0
    assert overlap.kept(sparse, 0.5).sum() == 1
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ArgumentError, match="share"):
            overlap.kept(sparse, share)


def test_measures_agree_with_other_libraries():
    a, b = pair(2)
    found = overlap.compare(a, b, 0.25)
    masks = [overlap.kept(one, 0.25).ravel() for one in (a, b)]
    assert found.iou == pytest.approx(jaccard_score(*masks), abs=1e-15)
    expected = stats.spearmanr(np.abs(a), np.abs(b), axis=None).statistic
    assert found.rank_correlation == pytest.approx(expected, abs=1e-12)
    assert found.cosine == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    masses = [np.abs(one).ravel() / np.abs(one).sum() for one in (a, b)]
    assert found.common_mass == pytest.approx(1 - 0.5 * np.abs(masses[0] - masses[1]).sum())


def test_equal_opposite_and_disjoint_maps():
    a, _ = pair(3)
    same, opposed = overlap.compare(a, 2 * a, 0.2), overlap.compare(a, -a, 0.2)
    assert (same.cosine, same.iou, same.common_mass) == pytest.approx((1, 1, 1))
    assert (opposed.cosine, opposed.iou, opposed.rank_correlation) == pytest.approx((-1, 1, 1))
    left, right = np.zeros((4, 4)), np.zeros((4, 4))
    left[:, :2], right[:, 2:] = 1, 1
    apart = overlap.compare(left, right, 0.5)
    assert (apart.iou, apart.common_mass, apart.cosine) == (0, 0, 0)
    assert apart.half_mass_a == 0.25  # 4 of 16 pixels hold half of what is on 8
    nothing = overlap.compare(np.zeros((4, 4)), left, 0.5)
    assert np.isnan([nothing.cosine, nothing.rank_correlation, nothing.common_mass]).all()
    assert nothing.iou == 0
    assert math.isnan(nothing.half_mass_a)


def test_ties_in_rank_are_scipys():
    a, b = RNG.integers(0, 4, (2, 8, 8)).astype(float)
    expected = stats.spearmanr(a, b, axis=None).statistic
    assert overlap.rank_correlation(a, b) == pytest.approx(expected, abs=1e-12)


def test_chance_overlap_is_that_of_random_regions():
    rng = np.random.default_rng(4)
    found = [
        overlap.intersection_over_union(*(overlap.kept(rng.random((40, 40)), 0.2) for _ in range(2)))
        for _ in range(200)
    ]
    # Standard deviation of one IoU is about 0.011: 200 of them are right within 0.003 at four sigma.
    assert np.mean(found) == pytest.approx(overlap.chance_overlap(0.2), abs=0.003)


# The stage, on a linear model, whose explanations are known.


def linear(dtype=torch.float64):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(model[1].weight.shape, generator=generator))
        model[1].bias.zero_()
    return model.to(dtype).eval()


def pictures(count=8):
    pixels = np.random.default_rng(1).integers(0, 255, (count, 3, SIZE, SIZE), dtype=np.uint8)
    labels = np.array([index % CLASSES for index in range(count)])
    labels[-1] = -1
    return ImageSet(pixels, labels, [f"own/{index}" for index in range(count)])


NAMES = ["cat", "dog", "<b>bird</b>"]
DESCRIBED = Described(NAMES, {"own/0": "https://example.org/0.jpg"}, "somewhere")


def settings(**changes):
    methods = {"gradient": {}, "smoothgrad": {"samples": 8}, "vargrad": {"samples": 8}}
    given = {"mistakes": 3, "methods": methods}
    return Competing(**(given | {"classes": ("cat", "dog"), "scenes": {"two": ["own/7", "own/0"]}} | changes))


@pytest.fixture(scope="module")
def computed():
    images = pictures()
    return competing(linear(), images, images, settings(), DESCRIBED, dtype=torch.float64)


def weights(k):
    return linear()[1].weight[k].reshape(3, SIZE, SIZE).detach().numpy()


def logits(images):
    return (images.images.reshape(len(images), -1) / 255.0) @ linear()[1].weight.detach().numpy().T


def test_the_table_is_valid_and_every_row_is_there(computed):
    table, arrays, ids = computed
    tables.check(table, COMPETING) if hasattr(tables, "check") else COMPETING.pandera.validate(table)
    assert (table["status"] == "ok").all()
    assert table.groupby("part")["image_id"].nunique().to_dict().get(SCENE) == 2
    assert len(table) == len(ids) == len(arrays["maps"]) == 3 * 3 + 2
    assert ordered(table, SCENE)["image_id"].tolist() == ["own/7", "own/0"]
    assert set(table.loc[table["image_id"] == "own/0", "origin"]) <= {"https://example.org/0.jpg"}


def test_errors_are_the_surest_and_true_class_is_second(computed):
    table, _, _ = computed
    images = pictures()
    z = logits(images)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    wrong = [i for i in range(7) if z[i].argmax() != images.labels[i]]
    expected = sorted(wrong, key=lambda i: -p[i].max())[:3]
    found = ordered(table, MISTAKE).drop_duplicates("image_id")
    assert found["image_id"].tolist() == [f"own/{i}" for i in expected]
    assert found["class_a"].tolist() == [int(z[i].argmax()) for i in expected]
    assert found["class_b"].tolist() == [int(images.labels[i]) for i in expected]
    assert set(table["test_errors"]) == {len(wrong)}
    assert set(table["test_images"]) == {7}


def test_maps_of_a_linear_model_are_its_weights(computed):
    table, arrays, ids = computed
    for number, name in enumerate(ids):
        same = (table["image_id"] == name) & (table["part"] == arrays["part"][number])
        row = table[same & (table["method"] == arrays["method"][number])].iloc[0]
        expected = np.stack([weights(int(row["class_a"])), weights(int(row["class_b"]))])
        if row["method"] == "vargrad":
            np.testing.assert_allclose(arrays["maps"][number], 0, atol=1e-12)
            assert math.isnan(row["iou"]) or row["iou"] >= 0
            continue
        # Stored as float32; every noisy copy has the same gradient.
        np.testing.assert_allclose(arrays["maps"][number], expected, rtol=1e-6, atol=1e-6)
        a, b = expected.sum(1)
        assert row["cosine"] == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)
        # Pixels are single precision: 108 of them with weights of order one.
        score = logits(pictures())[int(name.rpartition("/")[2]), int(row["class_a"])]
        assert row["score_a"] == pytest.approx(score, abs=1e-4)


def test_fewer_errors_are_filled_up_and_marked():
    images = pictures()
    right = ImageSet(images.images, logits(images).argmax(1).astype(np.int64), images.ids)
    table, _, _ = competing(linear(), right, right, settings(), DESCRIBED, dtype=torch.float64)
    assert not (table["part"] == MISTAKE).any()
    found = ordered(table, RIGHT).drop_duplicates("image_id")
    z = torch.from_numpy(logits(images)).softmax(1).topk(2, 1)[0]
    gaps = (z[:, 0] - z[:, 1]).numpy()
    assert found["image_id"].tolist() == [f"own/{i}" for i in gaps.argsort()[:3]]
    told = interpret_mistakes(table)
    assert told[0].startswith("The network errs on 0 of 8")
    assert "3 on which it was right" in told[0]


def test_scenes_without_names_are_those_where_two_classes_come_closest():
    images = pictures()
    table, _, _ = competing(linear(), images, images, settings(scenes=None), DESCRIBED, dtype=torch.float64)
    z = torch.from_numpy(logits(images)).softmax(1).numpy()[:, :2]
    margin = np.abs(z[:, 0] - z[:, 1]) / z.sum(1)
    expected = [f"own/{i}" for i in margin.argsort()[:3]]
    assert ordered(table, SCENE)["image_id"].tolist() == expected


def test_unknown_images_and_classes_are_named():
    images = pictures()
    for changes, told in (
        ({"scenes": {"two": ["own/70"]}}, "no test image is called 'own/70'; it may be own/7"),
        ({"classes": ("cat", "dgo")}, "no class is 'dgo'; it may be dog"),
        ({"classes": (0, 3)}, "no class is 3"),
    ):
        with pytest.raises(ConfigError, match=told):
            competing(linear(), images, images, settings(**changes), DESCRIBED, dtype=torch.float64)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scene_method": "caso"}, "none of methods"),
        ({"classes": ["cat", "cat"]}, "twice"),
        ({"scenes": {"a": ["x"], "b": ["x"]}}, "twice"),
        ({"keep": 1.0}, "keep"),
        ({"scene_dataset": "nowhere"}, "scene_dataset = 'nowhere' is not a key of `datasets`"),
        ({"methods": {"smoothgrad": {"sigma": -1}}}, "competing.methods.smoothgrad"),
    ],
)
def test_impossible_settings_are_refused(changes, told):
    raw = {
        "datasets": {"d": {"source": "sklearn_digits"}},
        "models": {"m": {"dataset": "d", "architecture": "mlp"}},
        "experiments": {"e": {"model": "m", "competing": changes}},
    }
    with pytest.raises(ConfigError, match=told):
        config.load(raw)


def test_an_image_that_fails_costs_one_row():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            if len(x) == 1 and float(x.detach()[0, 0, 0, 0]) == float(pictures().tensor(7)[0, 0, 0]):
                raise RuntimeError("cannot look at this")
            return self.inner(x)

    images = pictures()
    table, arrays, ids = competing(Fragile(), images, images, settings(), DESCRIBED, dtype=torch.float64)
    failed = table[table["status"] == "failed"]
    assert failed["image_id"].tolist() == ["own/7"]
    assert failed["part"].tolist() == [SCENE]
    assert "own/7" not in ids
    assert len(arrays["pixels"]) == len(ids) == len(table) - 1


# What is drawn and said.


@pytest.fixture(scope="module")
def drawable(computed):
    table, arrays, ids = computed
    return {"competing": table, "competing_maps": [{**arrays, "ids": np.array(ids), "folder": "e"}]}


@pytest.mark.parametrize("name", ["competing_mistakes", "competing_scenes"])
@pytest.mark.parametrize("layout", [style.WIDE, style.NARROW], ids=lambda layout: layout.name)
def test_figures_draw_and_tell(name, layout, drawable):
    spec = get(name)
    figure = spec.draw(drawable, layout)
    figure.canvas.draw()
    width, height = figure.get_size_inches()
    assert width == layout.width
    assert height < 20
    assert "Post-processing" in spec.caption(drawable)
    assert spec.alt(drawable)
    assert spec.finding(drawable)


@pytest.mark.parametrize("name", ["competing_mistakes", "competing_scenes"])
def test_a_run_in_which_every_image_failed_is_drawn_and_told(name):
    failed = {"competing": competing_world.table(failed=100), "competing_maps": [competing_world.maps()]}
    assert (failed["competing"]["status"] == "failed").all()
    spec = get(name)
    spec.draw(failed, style.NARROW).canvas.draw()
    assert spec.caption(failed)
    assert spec.alt(failed)
    assert spec.finding(failed) == ""
    assert interpret_mistakes(failed["competing"]) == interpret_scenes(failed["competing"]) == []
    assert str(set_for_reading.mistakes(failed["competing"])) == ""


def test_the_difference_is_drawn_on_the_scale_of_both(drawable):
    figure = get("competing_mistakes").draw(drawable, style.WIDE)
    row = next(ordered(drawable["competing"], MISTAKE).itertuples())
    (a, b), _ = _competing.found(drawable, row)
    drawn = [axes.images[0] for axes in figure.axes[1:4]]
    np.testing.assert_allclose(drawn[2].get_array(), drawn[0].get_array() - drawn[1].get_array())
    np.testing.assert_allclose(drawn[0].get_array(), a)
    largest = np.quantile(np.abs([a, b, a - b]), 0.99)
    for one in drawn:
        assert one.get_clim() == pytest.approx((-largest, largest))
        assert one.get_cmap().name == "RdBu_r"


def test_the_overlay_follows_the_rule():
    a, b = pair(5, (12, 12))
    pixels = np.full((12, 12, 3), 128, np.uint8)
    canvas = _competing.overlay(np.stack([a, b]), pixels, 0.2, 0.0)
    regions = [overlap.kept(one, 0.2) for one in (a, b)]
    blue = (canvas[..., 2] > canvas[..., 0] + 0.05) & (canvas.min(-1) != canvas.max(-1))
    orange = canvas[..., 0] > canvas[..., 2] + 0.05
    both = regions[0] & regions[1]
    np.testing.assert_array_equal(orange, regions[1] & ~both)
    np.testing.assert_array_equal(blue & ~both, regions[0] & ~both)
    np.testing.assert_allclose(canvas[~(regions[0] | regions[1])], 0.35 + 0.65 * 128 / 255)


def scene(name, kind, iou, cosine=0.0):
    return {
        "image_id": f"own/{name}", "status": "ok", "part": SCENE, "place": 0, "kind": kind,
        "method": "smoothgrad", "name_a": "cat", "name_b": "dog", "iou": iou,
        "chance_iou": 0.05, "rank_correlation": 0.1, "cosine": cosine, "half_mass_a": 0.1, "half_mass_b": 0.2,
    }  # fmt: skip


def test_the_words_follow_the_numbers():
    apart = interpret_scenes(pd.DataFrame([scene("a", "both", 0.02), scene("b", "hard", 0.04, -0.9)]))
    assert "opposed (cosine −0.90)" in apart[1]
    assert "0.4 times chance" in apart[0]
    assert "largest in b (hard, 0.04) and smallest in a (both, 0.02)" in apart[2]
    assert "medians by kind are both 0.02, hard 0.04" in apart[2]
    assert "On 2 of 2 pictures" in apart[2]
    assert "parts of its own" in apart[2]
    mixed = interpret_scenes(pd.DataFrame([scene("a", "both", 0.5)]))
    assert "does not tell the two classes' evidence apart" in mixed[-1]
    assert interpret_scenes(pd.DataFrame([scene("a", "both", float("nan"))])) == []


def test_the_tables_show_text_as_text(computed):
    table, _, _ = computed
    page = str(set_for_reading.mistakes(table)) + str(set_for_reading.scenes(table))
    assert "<b>bird" not in page
    assert "https://example.org/0.jpg" in page
    assert str(set_for_reading.scenes(table[table["part"] != SCENE])) == ""
