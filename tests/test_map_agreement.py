"""Tables beside stored maps, and the figures of them, against scipy and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from curvelens import figures, store, tables
from curvelens.experiments import distance_examples, distances, explanations
from curvelens.figures import style
from curvelens.figures.distance_examples import finding, maps
from curvelens.figures.inputs import load
from curvelens.summaries import map_agreement
from curvelens.summaries.distances import DISTANCES
from curvelens.summaries.explanations import EXPLANATIONS

HOSTILE = "<i>$5^_"
REQUESTS = {
    "gradient": {},
    "smoothgrad": {"samples": 8},
    "integrated_gradients": {"steps": 8},
    "cafo": {"l1_share": 0.3},
    "caso": {"l1_share": 0.3},
    "smoothcafo": {"l1_share": 0.3, "samples": 4},
    "smoothcaso": {"l1_share": 0.3, "samples": 4},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads only get in each other's way on arrays this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 24), nn.ReLU(), nn.Linear(24, 40)).requires_grad_(
        False
    )


@pytest.fixture(scope="module")
def images() -> store.ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, size=(5, 3, 6, 6)).astype(np.uint8)
    return store.ImageSet(pixels, np.array([0, 1, 2, -1, -1]), [f"{HOSTILE}/{i}" for i in range(5)])


@pytest.fixture(scope="module")
def folder(model, images, tmp_path_factory) -> Path:
    """What the stages leave behind; one map of one image failed."""
    root = tmp_path_factory.mktemp("stored")
    indices = []
    for name, (arrays, index) in explanations.explain_images(model, images, REQUESTS).items():
        if name == "smoothcaso":
            arrays = {key: np.where(np.arange(5).reshape(-1, *[1] * (a.ndim - 1)) == 3, np.nan, a)
                      for key, a in arrays.items()}  # fmt: skip
            lost = index["image_id"] == images.ids[3]
            index.loc[lost, ["status", "error", "calls"]] = ["failed", "RuntimeError: no luck", 0]
        store.save_explanations(root / name / "0.npz", {k: a[:2] for k, a in arrays.items()}, images.ids[:2])
        store.save_explanations(root / name / "1.npz", {k: a[2:] for k, a in arrays.items()}, images.ids[2:])
        indices.append(index)
    index = tables.write(pd.concat(indices), EXPLANATIONS, root / "explanations.parquet")
    compared = map_agreement.compare(index, sorted(root.glob("*/*.npz")))
    for table, name in zip(compared, ("context_aware", "map_agreement"), strict=True):
        tables.write(table, tables.SCHEMAS[name], root / f"{name}.parquet")
    store.save_image_set(root / "test.npz", images)
    table = distances.distances(model, images)
    tables.write(table, DISTANCES, root / "distances.parquet")
    store.save_explanations(root / "examples.npz", *distance_examples.examples(model, images, table, 2))
    (root / "model.json").write_text(json.dumps({"class_names": [HOSTILE] * 40}))
    return root


def inputs(folder: Path) -> dict[str, Path | list[Path]]:
    return {
        "explanations": folder / "explanations.parquet",
        "maps": sorted(path for path in folder.glob("*/*.npz")),
        "images": folder / "test.npz",
        "map_agreement": folder / "map_agreement.parquet",
        "context_aware": folder / "context_aware.parquet",
        "distances": folder / "distances.parquet",
        "distance_examples": folder / "examples.npz",
        "models": [folder / "model.json"],
    }


def test_numbers_are_those_stored_and_failures_keep_their_rows(folder, images):
    table = tables.read(folder / "context_aware.parquet", map_agreement.CONTEXT_AWARE)
    assert set(table["method"]) == {"cafo", "caso", "smoothcafo", "smoothcaso"}
    assert len(table) == 20
    failed = table[table["status"] == "failed"]
    assert failed[["method", "image_id"]].to_numpy().tolist() == [["smoothcaso", images.ids[3]]]
    assert failed["lambda1"].isna().all()
    fine = table[table["status"] == "ok"]
    np.testing.assert_allclose(fine["lambda1_share"].astype(float), 0.3, rtol=1e-6)
    # λ₂ = L/2 + 10, stored in single precision.
    np.testing.assert_allclose(
        fine["lambda2"].astype(float), fine["largest_eigenvalue"].astype(float) / 2 + 10, rtol=1e-6
    )
    assert (fine["kkt_residual"] <= 1e-4).all()
    for row in fine.itertuples():
        arrays = map_agreement.load(sorted((folder / row.method).glob("*.npz")))[row.method][row.image_id]
        zero = (arrays["attribution"] == 0).all(0).mean()
        assert row.sparsity == pytest.approx(zero, abs=1e-6)


def test_agreement_is_the_cosine_and_scipys_rank_correlation(folder, images):
    table = tables.read(folder / "map_agreement.parquet", map_agreement.MAP_AGREEMENT)
    assert len(table) == 5 * 21 - 6  # 21 pairs of 7 methods; the failed map is in 6 of them
    found = map_agreement.load(sorted(folder.glob("*/*.npz")))
    for row in table.itertuples():
        a, b = (found[name][row.image_id]["attribution"].astype(float) for name in (row.first, row.second))
        cosine = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
        assert row.cosine == pytest.approx(cosine, abs=1e-12)
        ranks = spearmanr(np.abs(a).sum(0).ravel(), np.abs(b).sum(0).ravel()).statistic
        assert row.rank_correlation == pytest.approx(ranks, abs=1e-12)
    plain = table[(table["first"] == "cafo") & (table["second"] == "caso")]
    assert (plain["cosine"] > 0.5).all()


def test_a_zero_map_agrees_with_none(tmp_path):
    ids = {"method": ["a", "b"], "image_id": "x", "label": 0, "prediction": 0, "confidence": 0.5}
    index = pd.DataFrame(ids | {"status": "ok"})
    for method, attribution in (("a", np.zeros((1, 1, 2, 2))), ("b", np.eye(2)[None, None])):
        store.save_explanations(tmp_path / method / "0.npz", {"attribution": attribution}, ["x"])
    _, table = map_agreement.compare(index, sorted(tmp_path.glob("*/*.npz")))
    assert len(table) == 1
    assert table[["cosine", "rank_correlation"]].isna().all(axis=None)


def test_examples_are_the_ends_of_the_table(folder, model, images):
    table = tables.read(folder / "distances.parquet", DISTANCES).sort_values("distance")
    stored = store.load_npz(folder / "examples.npz")
    ids = table["image_id"].tolist()
    assert stored["ids"].tolist() == [*ids[:2], *ids[-2:]]
    assert stored["far"].tolist() == [False, False, True, True]
    for place, image_id in enumerate(stored["ids"]):
        row = table[table["image_id"] == image_id].iloc[0]
        difference = stored["caso"][place].astype(float) - stored["cafo"][place].astype(float)
        # The stage computed the distance from unit vectors in double precision; these are rounded to single.
        assert np.linalg.norm(difference) == pytest.approx(row["distance"], rel=1e-3, abs=3e-7)
        assert np.linalg.norm(stored["cafo"][place]) == pytest.approx(1, rel=1e-6)
        x = images.tensor(images.ids.index(image_id)).requires_grad_()
        (-model(x[None])[0].log_softmax(0)[int(row["prediction"])]).backward()
        g = (x.grad / x.grad.norm()).numpy()
        np.testing.assert_allclose(stored["cafo"][place], g, atol=1e-5)


def test_few_images_are_not_shown_twice(folder):
    table = tables.read(folder / "distances.parquet", DISTANCES)
    near, far = distance_examples.ends(table, 9)
    assert len(near) == len(far) == 2
    assert not set(near) & set(far)
    assert distance_examples.ends(table.head(1), 3) == ([], [])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["method_comparison", "distance_examples"])
def test_figures_draw_and_read_names_as_text(name, folder, tmp_path):
    files = figures.draw(name, inputs(folder), tmp_path / f"{name}.png")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files[:2])
    texts = json.loads(files[2].read_text())
    assert HOSTILE in texts["alt"]
    assert texts["caption"]


def test_the_comparison_says_what_the_table_says(folder):
    loaded = load(inputs(folder))
    table = loaded["map_agreement"]
    pair = table[(table["first"] == "cafo") & (table["second"] == "caso")]
    swapped = table.assign(cosine=np.where(table["first"] == "cafo", -0.5, table["cosine"]))
    told = figures.get("method_comparison").finding
    assert f"n = {len(pair)}" in told(loaded)
    assert "less than noise" in told({**loaded, "map_agreement": table.assign(
        cosine=np.where(table["second"] == "caso", 0.9, 0.1))})  # fmt: skip
    assert "no less than noise" in told({**loaded, "map_agreement": swapped})


def test_the_caption_counts_equal_penalties(folder):
    loaded = load(inputs(folder))
    table = loaded["context_aware"]
    first = (table["method"] == "caso") & (table["image_id"] == table["image_id"].min())
    other = table.assign(lambda1=table["lambda1"].where(~first, 1e3))
    told = figures.get("method_comparison").caption
    assert "the same λ₁ on 5 of 5 images" in told(loaded)
    assert "the same λ₁ on 4 of 5 images" in told({**loaded, "context_aware": other})


def test_one_scale_for_all_maps(folder):
    figure = figures.get("method_comparison").draw(load(inputs(folder)), style.WIDE)
    shown = [axes.images[0] for axes in figure.axes if axes.images]
    scaled = [image for image in shown if image.norm.vmax == 1]
    assert len(scaled) == 7 * len([image for image in shown if image.norm.vmax == 255])
    for image in scaled:
        assert image.norm.vmin == 0
        assert image.get_array().max() == 1


def test_the_difference_is_on_the_scale_of_the_maps(folder):
    loaded = load(inputs(folder))
    stored = loaded["distance_examples"][0]
    first, second, difference = maps(loaded, stored["ids"][0])
    a, b = (stored[name][0].astype(float) for name in ("cafo", "caso"))
    cap = np.percentile(np.abs(a).sum(0), 99)
    np.testing.assert_allclose(first, np.minimum(np.abs(a).sum(0) / cap, 1))
    np.testing.assert_allclose(second, np.minimum(np.abs(b).sum(0) / cap, 1))
    np.testing.assert_allclose(difference, np.minimum(np.abs(b - a).sum(0) / cap, 1))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_examples_say_where_the_network_is_sure(folder, reverse):
    loaded = load(inputs(folder))
    rank = loaded["distances"]["distance"].rank()
    confidence = rank / 10 if reverse else 1 - rank / 10
    told = finding({**loaded, "distances": loaded["distances"].assign(confidence=confidence)})
    assert ("is not less sure" in told) == reverse


def test_figures_of_nothing(folder):
    loaded = load(inputs(folder))
    nothing = {**loaded, "explanations": loaded["explanations"].assign(status="failed")}
    spec = figures.get("method_comparison")
    assert spec.draw(nothing, style.NARROW)
    assert spec.caption({**nothing, "map_agreement": loaded["map_agreement"].head(0)})
    stored = {key: array[:0] for key, array in loaded["distance_examples"][0].items()}
    spec = figures.get("distance_examples")
    assert spec.draw({**loaded, "distance_examples": [stored]}, style.WIDE)
    assert finding({**loaded, "distance_examples": [stored]}) == ""
    assert spec.caption({**loaded, "distance_examples": [stored]})
