"""Classes of one picture or none, labels that are no class, ids that come twice: told, or computed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bad_images_world import STAGES, images, network
from PIL import Image

from curvelens import datasets, training
from curvelens.datasets import RawDataset
from curvelens.errors import ArgumentError, ConfigError, DataError
from curvelens.experiments import evaluation, selection
from curvelens.store import ImageSet, load_image_set
from curvelens.summaries import evaluation as summaries


def raw(labels, names=("a", "b", "c"), **changes):
    labels = np.asarray(labels)
    pixels = np.zeros((len(labels), 1, 2, 2), np.uint8)
    ids = [f"own/{index}" for index in range(len(labels))]
    plain = RawDataset(pixels, labels, ids, list(names), "here", "none")
    return replace(plain, **changes)


@pytest.fixture
def loaded(monkeypatch):
    """Load whatever a loader of one's own returns."""

    def load(given):
        entry = datasets.REGISTRY.get("sklearn_digits")
        ours = replace(entry, function=lambda *arguments: given)
        monkeypatch.setattr(datasets.REGISTRY, "get", lambda *arguments, **options: ours)
        return datasets.load("sklearn_digits")

    return load


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (raw(np.zeros(0, np.int64)), "has no images; correct its parameters, or add some"),
        (raw([0, 0], ["a"]), "has 1 class; a classifier needs 2 or more"),
        (raw([0, 1, 7, 3]), r"2 of 4 labels are no class, first 7 of 'own/2'; give 0 to 2, or -1"),
        (raw([0, 1, -2]), "1 of 3 labels are no class, first -2 of 'own/2'"),
        (raw([0.0, 1.0]), r"labels must be int64 \[2\], not float64 \[2\]; give one class index an image"),
        (raw(["a", "b"]), r"labels must be int64 \[2\], not <U1"),
        (raw([[0], [1]]), r"labels must be int64 \[2\], not int64 \[2, 1\]"),
        (raw([0, 1], ids=["x", "x"]), "1 ids come more than once, first 'x'; ids tell images apart"),
        (raw([0, 1], ids=["x", "y\n"]), r"the id 'y\\n' is no text of plain characters; rename it"),
        (raw([0, 1], ids=["x", 2]), "the id 2 is no text of plain characters"),
        (raw([0, 1], ["a", "\x1b[31mb"]), r"the class '\\x1b\[31mb' is no text of plain characters"),
        (raw([0, 1], ["a", "b\u202ec"]), r"the class 'b\\u202ec' is no text"),
        (raw([0, 1], images=np.zeros((2, 1, 2, 2))), "images must be uint8 .*, not float64"),
        (raw([0, 1], test=np.array([1, 2])), "positions from 1 to 2, but there are 2 images"),
    ],
)
def test_what_is_no_data_set_is_told_in_a_line(loaded, given, told):
    with pytest.raises(DataError, match=told) as caught:
        loaded(given)
    assert str(caught.value).startswith("data set sklearn_digits: ")
    assert str(caught.value).isprintable()


def test_one_class_alone_cannot_be_told_from_another(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "cat" / name)
    chosen = {"classes": "folders", "size": 8}
    with pytest.raises(DataError, match="has 1 class folders and 0 pictures outside them; give one folder a"):
        datasets.load("image_folder", chosen, tmp_path)
    with pytest.raises(ConfigError, match="class_names has 'cat' twice; name each class once"):
        datasets.load("image_folder", chosen | {"class_names": ["cat", "cat"]}, tmp_path)
    known = datasets.load("image_folder", chosen | {"class_names": ["cat", "dog"]}, tmp_path)
    assert (known.class_names, known.labels.tolist()) == (["cat", "dog"], [0, 0])


# ---------------------------------------------------------------- splits


def test_a_class_of_one_picture_is_in_one_split_and_counted_as_none_in_the_others(tmp_path, loaded):
    source = raw([0] * 20 + [1] * 20 + [2])
    loaded(source)
    datasets.prepare("sklearn_digits", tmp_path, validation=0.2, test=0.2)
    counts = json.loads((tmp_path / "dataset.json").read_text())["images_per_class"]
    assert [sum(counts[part][label] for part in counts) for label in range(3)] == [20, 20, 1]
    parts = [load_image_set(tmp_path / f"{part}.npz") for part in datasets.SPLITS]
    assert sum(len(part) for part in parts) == 41


def test_a_set_of_pictures_all_of_one_class_can_be_split():
    parts = datasets.split(raw([1] * 10), validation=0.2, test=0.2)
    assert [len(part) for part in parts.values()] == [6, 2, 2]


def test_too_few_pictures_are_told():
    for count in (1, 2):
        with pytest.raises(ConfigError, match=r"split.*give a share|leave none to train on"):
            datasets.split(raw([0] * count), validation=1, test=1)
    with pytest.raises(
        ConfigError, match="5 images were asked for, but the split has 4 images; ask for fewer"
    ):
        selection.take(images(), 5)
    with pytest.raises(ArgumentError, match="shard 0 of 5 cannot be taken from 4 images; use fewer shards"):
        images().shard(0, 5)


# ---------------------------------------------------------------- stages

NONE = {"judging", "competing"}  # their settings ask for one image at least


@pytest.mark.parametrize("stage", [name for name in STAGES if name not in NONE])
def test_no_images_are_an_empty_table(stage):
    made = STAGES[stage](network(1e-3), images().subset([]))
    assert len(made) == 0
    assert {"image_id", "status"} <= {*made.columns}


LABELS = {"one class alone": 0, "no class known": -1}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_copes_with_labels_of_one_kind(stage, labels):
    some = images(flat=None)
    some = ImageSet(some.images, np.full(4, LABELS[labels]), some.ids)
    made = STAGES[stage](network(1e-3), some)
    assert len(made)
    assert (made["status"] == "ok").all(), made["error"].tolist()
    assert set(made["label"]) == {LABELS[labels]}


def test_classes_without_a_test_image_have_no_share_that_is_right():
    """Three classes, of which the test images show one, and none is ever taken for another."""
    some = images(flat=None)
    found = evaluation.predictions(network(1e-3), some)
    kept = found[found["label"] == found["label"].iloc[0]]
    summary, reliability = summaries.summarise(kept)
    confusion = summaries.confusion(kept, ["a", "b", "c"])
    assert summary["images"].iloc[0] == reliability["images"].sum() == confusion["images"].sum() == len(kept)
    assert confusion.loc[confusion["images"] > 0, "label"].unique().tolist() == [kept["label"].iloc[0]]


def test_labels_beyond_the_classes_fail_by_name():
    some = images(flat=None)
    wrong = ImageSet(some.images, np.array([0, 1, 7, 2]), some.ids)
    made = evaluation.predictions(network(1e-3), wrong).set_index("image_id")
    assert made["status"].to_dict() == {f"own/{i}": "failed" if i == 2 else "ok" for i in range(4)}
    assert "label 7 is beyond the network's 3 classes" in made.loc["own/2", "error"]
    told = "accuracy: 1 of 4 images have a label beyond the network's 3 classes, first 'own/2' with 7"
    with pytest.raises(DataError, match=told):
        training.evaluate(network(1e-3).append(torch.nn.Linear(3, 3)), wrong)
