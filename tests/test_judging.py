"""The stage of judgement: its rows, failures, grids, and that shards change nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from judging_world import CLASSES, METHODS, SIZE, explained, images, judge, network, settings
from torch import nn

from curvelens import config, store
from curvelens.errors import ConfigError, DataError
from curvelens.experiments import judging, judging_grids
from curvelens.experiments.judging_measures import Loss, Scene, mask_of, read
from curvelens.experiments.rows import predict
from curvelens.localization import importance, localization
from curvelens.sections.judging import Grids
from curvelens.summaries.judging import METRICS, RANDOM

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def judged():
    return judge().images(images(), dtype=DOUBLE)


def values(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def test_every_map_is_judged_by_every_measure_and_none_fails(judged):
    table, curves = judged
    assert (table["status"] == "ok").all()
    stored = {"pointing", "energy", "pixel_auc", "deletion", "insertion", "insertion_loss", "calls"}
    for method in METHODS:
        assert stored <= set(values(table, method=method)["metric"])
    assert set(values(table, metric="unexplained")["method"]) == {
        "gradient", "smoothgrad", "integrated_gradients", RANDOM,
    }  # fmt: skip
    assert set(values(table, metric="own_unexplained")["method"]) == {"gradient", "smoothgrad"}
    assert set(values(table, metric="sensitivity")["image_id"]) == set(images().ids[:2])
    assert set(values(table, metric="randomization")["image_id"]) == {images().ids[0]}
    assert len(curves) == 8 * 5 * 2 * 5
    assert "calls" not in set(values(table, method=RANDOM)["metric"])


def test_where_a_map_points_is_measured_against_the_mask(judged):
    table, _ = judged
    name = images().ids[3]
    stored = explained()[0]["integrated_gradients"][name]
    mask = images().masks[3]
    expected = localization(importance(stored, contributions=True), (mask > 0) & (mask < 255), mask != 255)
    found = values(table, image_id=name, method="integrated_gradients").set_index("metric")["value"]
    assert found["pixel_auc"] == pytest.approx(expected.auc)
    assert found["best_iou"] == pytest.approx(expected.best_iou)
    assert found["localization_error"] == pytest.approx(expected.error)


def test_curves_run_from_image_to_baseline_and_back(judged):
    table, curves = judged
    name = images().ids[0]
    p = float(predict(network(), images().tensor([0]).double()).confidence[0])
    of_image = curves[(curves["image_id"] == name) & (curves["method"] == "gradient")]
    ends = of_image.set_index(["curve", "share"])["probability"]
    assert ends["deletion", 0.0] == ends["insertion", 1.0] == pytest.approx(p)
    assert ends["deletion", 1.0] == ends["insertion", 0.0] != pytest.approx(p)
    area = np.trapezoid(ends["deletion"].sort_index(), np.linspace(0, 1, 5))
    found = values(table, image_id=name, method="gradient", metric="deletion")["value"].iloc[0]
    assert found == pytest.approx(area)


def test_very_near_the_image_the_gradient_explains_the_loss_and_noise_does_not(judged):
    table, _ = judged
    near = values(table, metric="unexplained", at=0.01).groupby("method")["value"].median()
    assert near["gradient"] < 0.01
    assert near[RANDOM] > 0.8
    own = values(table, metric="own_unexplained", at=0.01, method="gradient")["value"]
    assert (own < 0.01).all()


def test_contributions_are_slopes_times_the_distance_from_the_baseline():
    x = torch.rand(3, 4, 4, dtype=DOUBLE)
    loss = Loss(network(), Scene("one", x, 0), [0.1], 8, seed=0)
    slope = torch.randn_like(x)
    found = loss._slope(
        "integrated_gradients", (slope * (x - 0.25)).numpy(), {"integrated_gradients": {"baseline": 0.25}}
    )
    near = (x - 0.25).abs() < 1 / 512
    torch.testing.assert_close(found, slope.masked_fill(near, 0))
    assert loss._slope("vargrad", slope.numpy(), {}) is None


def test_shards_change_no_number(judged):
    parts = [judge().images(images().shard(index, 3), dtype=DOUBLE)[0] for index in range(3)]
    joined = pd.concat(parts)
    columns = ["image_id", "method", "metric", "at", "value"]
    measured = ~judged[0]["metric"].isin(["seconds", "memory"])

    def plain(table):
        return table[columns].sort_values(columns[:4]).reset_index(drop=True)

    whole = plain(judged[0][measured])
    pd.testing.assert_frame_equal(plain(joined[~joined["metric"].isin(["seconds", "memory"])]), whole)


def test_one_bad_map_spoils_its_own_rows():
    maps, _ = explained()
    name = images().ids[1]
    bad = {**maps, "gradient": {**maps["gradient"], name: np.full((3, SIZE, SIZE), np.nan, np.float32)}}
    quick = settings(stability=None, randomization=None)
    table, curves = judge(maps=bad, settings=quick).images(images(), dtype=DOUBLE)
    failed = table[table["status"] == "failed"]
    assert failed[["image_id", "method"]].to_numpy().tolist() == [[name, "gradient"]]
    assert "not finite" in failed["error"].iloc[0]
    fine = values(table, image_id=name, metric="unexplained")
    assert set(fine["method"]) == {"smoothgrad", "integrated_gradients", RANDOM}
    assert not ((curves["image_id"] == name) & (curves["method"] == "gradient")).any()


def test_an_image_without_a_map_fails_as_a_whole():
    maps, _ = explained()
    some = {**maps, "vargrad": {}}
    table, _ = judge(maps=some, settings=settings(stability=None)).images(images().subset([0]), dtype=DOUBLE)
    assert "vargrad stored no map" in table["error"].iloc[0]


def test_masks_stand_for_classes():
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    where, known = mask_of(mask, 7, {1: 3, 2: 7})
    assert where.tolist() == [[False, False], [True, False]]
    assert known.tolist() == [[True, True], [True, False]]
    dataset = {"class_names": ["cat", "dog"], "mask_values": {"2": "dog", "1": "cat", "9": "tree"}}
    assert judging.mask_classes(dataset) == {1: 0, 2: 1}
    assert judging.mask_classes({"class_names": []}) == {}


def test_maps_are_read_by_what_they_say():
    attribution = np.array([[[2.0]], [[-5.0]]])
    assert read("gradient", attribution) == 7
    assert read("integrated_gradients", attribution) == 0
    assert read(RANDOM, attribution) == 7


def grids(**changes):
    chosen = Grids.model_validate({"count": 5, "shape": [1, 2], "confidence": 0.0, **changes})
    return judging_grids.grids(network(torch.float32), images(), chosen, seed=1)


def test_grids_hold_images_of_different_classes_and_know_the_cell():
    made = grids()
    pixels = dict(zip(images().ids, images().images, strict=True))
    labels = dict(zip(images().ids, images().labels, strict=True))
    assert made.images.images.shape == (5, 3, SIZE, 2 * SIZE)
    for place, parts in enumerate(made.parts):
        assert len({labels[part] for part in parts}) == 2
        for column, part in enumerate(parts):
            across = slice(column * SIZE, (column + 1) * SIZE)
            np.testing.assert_array_equal(made.images.images[place][:, :, across], pixels[part])
            inside = made.cells[place][:, across]
            assert inside.all() if labels[part] == made.images.labels[place] else not inside.any()
    assert made.shard(1, 2).images.ids == ["grid/1", "grid/3"]
    assert len(made.shard(6, 7).images) == 0


def test_cells_are_laid_out_row_by_row():
    parts = np.arange(6)[:, None, None, None] * np.ones((1, 1, 2, 1), int)
    assert judging_grids._joined(parts, 2, 3)[0, :, :].tolist() == [
        [0, 1, 2],
        [0, 1, 2],
        [3, 4, 5],
        [3, 4, 5],
    ]


def test_maps_of_grids_are_judged_by_their_cells():
    made = grids()
    table, arrays = judge().grids(made, dtype=DOUBLE)
    assert (table["status"] == "ok").all()
    assert set(table["scene"]) == {"grid"}
    rows = values(table, metric="energy", method="gradient").sort_values("image_id")
    inside = (arrays["gradient"] * arrays["cells"]).sum((1, 2)) / arrays["gradient"].sum((1, 2))
    np.testing.assert_allclose(rows["value"].astype(float), inside, rtol=1e-5)  # the arrays are float32
    assert (rows["chance"] == 0.5).all()
    assert (rows["target"].to_numpy() == made.images.labels).all()


def test_grids_need_enough_classes_and_a_network_of_any_size():
    with pytest.raises(ConfigError, match="make shape or confidence smaller"):
        grids(shape=[3, CLASSES])
    rigid = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    with torch.no_grad():
        rigid[1].weight[:] = 0
        rigid[1].weight[0, 0], rigid[1].bias[0] = 1, -float(images().tensor()[:, 0, 0, 0].median())
    labels = predict(rigid, images().tensor()).prediction.numpy()
    assert set(labels) == {0, 1}
    with pytest.raises(ConfigError, match="one size only"):
        judging_grids.grids(
            rigid,
            store.ImageSet(images().images, labels, images().ids),
            Grids(count=1, shape=(1, 2), confidence=0),
        )


def test_stored_maps_are_read_by_method_and_image(tmp_path):
    file = tmp_path / "gradient" / "0.npz"
    store.save_explanations(file, {"attribution": np.ones((2, 1, 2, 2))}, ["a", "b"])
    assert set(judging.stored_maps([file], {"b"})["gradient"]) == {"b"}
    store.save_explanations(file, {"other": np.ones((2, 1))}, ["a", "b"])
    with pytest.raises(DataError, match="explain again"):
        judging.stored_maps([file], {"b"})


def test_time_is_scaled_to_what_a_method_would_have_taken_alone():
    rows = [("a", 4, 4, 2.0), ("b", 1, 4, 0.5), ("c", 0, 4, 0.1), ("d", 0, 0, 3.0)]
    index = pd.DataFrame(rows, columns=["method", "calls", "calls_alone", "seconds"])
    found = judging.costs(index.assign(image_id="x", status="ok"))
    assert found["a", "x"] == {"calls": 4, "seconds": 2}
    assert found["b", "x"] == {"calls": 4, "seconds": 2}
    assert found["c", "x"] == {"calls": 4}
    assert found["d", "x"] == {"calls": 0, "seconds": 3}


def test_every_row_has_a_known_measure(judged):
    assert set(judged[0]["metric"]) <= set(METRICS)


WORLD = {
    "datasets": {"d": {"source": "sklearn_digits"}},
    "models": {"m": {"dataset": "d", "architecture": "mlp", "parameters": {"hidden": [8]}, "training": {}}},
}


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ({"explanations": None, "judging": {}}, "judging needs explanations"),
        ({"explanations": {"images": 3}, "judging": {"images": 4}}, "judge fewer or explain more"),
        ({"judging": {"again": ["lime"]}}, "is not among explanations.methods"),
        ({"judging": {"images": 1}}, "ask for fewer"),
        ({"judging": {"grids": {"shape": [1, 1]}}}, "two cells or more"),
    ],
)
def test_impossible_settings_are_refused(experiment, said):
    with pytest.raises(ConfigError, match=said):
        config.load({**WORLD, "experiments": {"e": {"model": "m", **experiment}}})
