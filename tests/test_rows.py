import logging

import numpy as np
import pytest
import torch
from torch import nn

from curvelens import tables
from curvelens.errors import ConfigError, ModelError
from curvelens.experiments import rows
from curvelens.store import ImageSet
from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, Column, Table


class Sums(nn.Module):
    """Logits (sum of the pixels, 1); dropout would change them in training mode."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)

    def forward(self, x):
        total = self.dropout(x.flatten(1)).sum(1)
        return torch.stack([total, torch.ones_like(total)], 1)


@pytest.fixture
def images():
    pixels = np.zeros((4, 1, 1, 2), dtype=np.uint8)
    pixels[1, 0, 0] = 255
    pixels[2, 0, 0, 0] = 51
    return ImageSet(pixels, np.array([1, 0, 1, 0]), [f"set/{index}" for index in range(4)])


def test_predictions_are_those_of_the_softmax(images):
    model = Sums().train()
    found = rows.predict(model, images.tensor(), chunk=3)
    assert found.prediction.tolist() == [1, 0, 1, 1]
    sums = np.array([0, 2, 0.2, 0])
    expected = np.exp(np.maximum(sums, 1)) / (np.exp(sums) + np.e)
    # float32 arithmetic on numbers of order 1
    np.testing.assert_allclose(found.confidence, expected, rtol=1e-6)
    assert found.logits.shape == (4, 2)
    assert not found.logits.requires_grad
    assert model.training
    assert model.dropout.training


def test_bad_logits_are_refused(images):
    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return self.value.expand(len(x), *self.value.shape[1:])

    with pytest.raises(ModelError, match="not finite"):
        rows.predict(Constant(torch.full((1, 2), float("nan"))), images.tensor())
    with pytest.raises(ModelError, match="one row of logits an image"):
        rows.predict(Constant(torch.zeros(1, 2, 2)), images.tensor())


TABLE = Table(
    "example",
    "One image at one radius.",
    {
        **IMAGE_COLUMNS,
        "model": Column(str, "Model."),
        "radius": Column(float, "Radius.", nullable=True),
        "total": Column(float, "Sum of the pixels."),
        **RUN_COLUMNS,
    },
    ("image_id", "radius"),
)


def measure(item):
    if item.image_id == "set/1":
        raise ValueError("two\nlines")
    return [{"radius": radius, "total": float(item.x.sum()), "calls": 5} for radius in (1.0, 2.0)]


def test_one_bad_image_spoils_one_row(images, caplog):
    with caplog.at_level(logging.ERROR):
        made = rows.per_image(images, Sums(), measure, description="sums", constants={"model": "m"})
    table = tables.frame(made, TABLE)
    assert len(table) == 7
    bad = table[table["status"] == "failed"]
    assert bad["image_id"].tolist() == ["set/1"]
    assert bad["error"].tolist() == ["ValueError: two lines"]
    # What was known before the failure is kept.
    assert bad["prediction"].tolist() == [0]
    assert bad["model"].tolist() == ["m"]
    good = table[table["status"] == "ok"]
    assert good["error"].tolist() == [""] * 6
    assert good["label"].tolist() == [1, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(good["total"], [0, 0, 0.2, 0.2, 0, 0])
    assert good["calls"].tolist() == [5] * 6
    assert (good["seconds"] > 0).all()
    assert "set/1 failed" in caplog.text
    assert "Traceback" in caplog.text
    assert rows.failed_share(table) == 0.25


def test_a_single_row_and_its_own_time_are_accepted(images):
    made = rows.per_image(images, Sums(), lambda item: {"total": 1.0, "seconds": 9.0}, description="one")
    assert [row["seconds"] for row in made] == [9.0] * 4
    assert [row["calls"] for row in made] == [0] * 4
    assert [row["image_id"] for row in made] == images.ids


def test_the_item_follows_dtype_and_order(images):
    seen = []
    rows.per_image(images, Sums(), lambda item: seen.append(item) or [], description="x", dtype=torch.float64)
    assert [item.x.dtype for item in seen] == [torch.float64] * 4
    assert [item.prediction for item in seen] == [1, 0, 1, 1]
    assert torch.equal(seen[2].logits, torch.tensor([seen[2].x.sum(), 1.0], dtype=torch.float64))


def test_results_do_not_depend_on_the_shards(images):
    whole = rows.per_image(images, Sums(), measure, description="x")
    parts = [
        row
        for index in range(4)
        for row in rows.per_image(images.shard(index, 4), Sums(), measure, description="x")
    ]
    for one, other in zip(whole, parts, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_a_failing_prediction_spoils_its_row_only(images):
    class Fussy(Sums):
        def forward(self, x):
            if float(x.sum()) == 2:
                raise RuntimeError("white")
            return super().forward(x)

    made = rows.per_image(images, Fussy(), lambda item: {"total": 0.0}, description="x")
    assert [row["status"] for row in made] == ["ok", "failed", "ok", "ok"]
    assert "prediction" not in made[1]


def test_a_wrong_configuration_stops_everything(images):
    def refuse(item):
        raise ConfigError("sigma must be > 0")

    with pytest.raises(ConfigError):
        rows.per_image(images, Sums(), refuse, description="x")


def test_long_messages_are_cut():
    assert len(rows.one_line(ValueError("x" * 1000))) == 300
    assert rows.one_line(KeyError()) == "KeyError"
