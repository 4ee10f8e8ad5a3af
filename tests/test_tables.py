import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from curvelens import tables
from curvelens.errors import DataError
from curvelens.tables import IMAGE_COLUMNS, RUN_COLUMNS, Column, Table

RESULT = Table(
    "result",
    "One image at one radius.",
    {
        **IMAGE_COLUMNS,
        "radius": Column(float, "Radius of the ball.", unit="L2", gt=0),
        "law": Column(str, "Radius law.", isin=("ball", "paper")),
        "changed": Column(bool, "Whether the prediction changed."),
        "border": Column(float, "Distance to the border; missing for smooth networks.", nullable=True, ge=0),
        **RUN_COLUMNS,
    },
    ("image_id", "radius"),
)


def row(**changes):
    base = {"image_id": "a/1", "label": 3, "prediction": 3, "confidence": 0.9, "radius": 0.25, "law": "ball"}
    tail = {"changed": True, "border": 0.125, "seconds": 0.5, "calls": 7, "status": "ok", "error": ""}
    return base | tail | changes


FAILED = {"image_id": "a/9", "label": 1, "seconds": 0.1, "calls": 0, "status": "failed", "error": "E: no"}


def test_rows_become_a_typed_sorted_table():
    frame = tables.frame([row(radius=0.5), row(image_id="a/0"), row()], RESULT)
    assert list(frame.columns) == list(RESULT.columns)
    assert list(zip(frame["image_id"], frame["radius"], strict=True)) == [
        ("a/0", 0.25),
        ("a/1", 0.25),
        ("a/1", 0.5),
    ]
    assert str(frame["label"].dtype).lower() == "int64"
    assert frame["confidence"].dtype == np.float64


def test_a_failed_row_may_lack_everything_but_its_identity():
    frame = tables.frame([row(), FAILED], RESULT)
    assert frame["radius"].isna().tolist() == [False, True]
    assert frame.loc[1, "error"] == "E: no"
    assert frame["prediction"].isna().tolist() == [False, True]
    with pytest.raises(DataError, match="image_id"):
        tables.frame([FAILED | {"image_id": None}], RESULT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 0.0}, "column radius.*0.0.*greater_than"),
        ({"law": "cube"}, "column law.*'cube'.*isin"),
        ({"confidence": 1.5}, "column confidence.*1.5.*less_than_or_equal"),
        ({"confidence": None}, "confidence is missing for image a/1, which did not fail"),
        ({"label": 2.5}, "column label"),
        ({"label": "three"}, "column label"),
        ({"surprise": 1}, "unknown columns surprise"),
        ({"status": "perhaps"}, "column status.*'perhaps'"),
    ],
)
def test_a_value_that_does_not_fit_is_named_on_one_line(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        tables.frame([row(**changes)], RESULT)
    assert str(caught.value).startswith("table result: ")
    assert "\n" not in str(caught.value)


def test_a_nullable_value_may_be_missing():
    assert tables.frame([row(border=None)], RESULT)["border"].isna().all()


def test_two_rows_with_the_same_keys_are_refused():
    with pytest.raises(DataError, match=r"more than one row has image_id=a/1, radius=0\.25"):
        tables.frame([row(), row(calls=8)], RESULT)


def test_a_missing_column_is_refused():
    with pytest.raises(DataError, match="lacks calls"):
        RESULT.validate(tables.frame([row()], RESULT).drop(columns="calls"))


def test_parquet_keeps_every_digit_and_csv_six(tmp_path):
    third = 1 / 3
    written = tables.write(
        tables.frame([row(confidence=third, border=12345678.9), FAILED], RESULT),
        RESULT,
        tmp_path / "t" / "result.parquet",
        tmp_path / "t" / "result.csv",
    )
    back = tables.read(tmp_path / "t" / "result.parquet", RESULT)
    pd.testing.assert_frame_equal(back, written)
    assert back.loc[0, "confidence"] == third
    raw = (tmp_path / "t" / "result.csv").read_bytes()
    assert b"\r" not in raw
    lines = raw.decode().splitlines()
    assert lines[0] == ",".join(RESULT.columns)
    assert lines[1] == "a/1,3,3,0.333333,0.25,ball,True,1.23457e+07,0.5,7,ok,"
    assert lines[2] == "a/9,1,,,,,,,0.1,0,failed,E: no"


def test_large_whole_numbers_survive_beside_missing_ones(tmp_path):
    # 2**53 + 1 is the first whole number that a float64 cannot hold.
    big = 2**53 + 1
    tables.write(tables.frame([row(calls=big), FAILED], RESULT), RESULT, tmp_path / "r.parquet")
    assert tables.read(tmp_path / "r.parquet", RESULT)["calls"].tolist()[0] == big


def test_the_same_rows_give_the_same_bytes_in_any_order(tmp_path):
    rows = [row(image_id=f"a/{index}") for index in range(5)]
    tables.write(tables.frame(rows, RESULT), RESULT, tmp_path / "1.parquet", tmp_path / "1.csv")
    shuffled = pd.DataFrame(rows[::-1])[list(RESULT.columns)[::-1]]
    tables.write(shuffled, RESULT, tmp_path / "2.parquet", tmp_path / "2.csv")
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_units_and_meanings_travel_in_the_file(tmp_path):
    tables.write(tables.frame([row()], RESULT), RESULT, tmp_path / "r.parquet")
    field = pq.read_schema(tmp_path / "r.parquet").field("radius")
    assert field.metadata == {b"description": b"Radius of the ball.", b"unit": b"L2"}


def test_a_table_that_does_not_fit_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "r.parquet"
    tables.write(tables.frame([row()], RESULT), RESULT, path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="lacks"):
        tables.write(pd.DataFrame({"image_id": ["a"]}), RESULT, path, tmp_path / "r.csv")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r.parquet"]


def test_unreadable_files_are_named_with_their_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no\.parquet: no such table; run the step that makes it"):
        tables.read(tmp_path / "no.parquet", RESULT)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 rubbish PAR1")
    with pytest.raises(DataError, match=r"bad\.parquet: not readable as parquet .*; delete it and run again"):
        tables.read(tmp_path / "bad.parquet", RESULT)
    pd.DataFrame({"image_id": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(
        DataError, match=r"other\.parquet: table result: lacks label.*; delete it and run again"
    ):
        tables.read(tmp_path / "other.parquet", RESULT)


def test_shards_are_collected_into_the_table_of_the_whole(tmp_path):
    rows = [row(image_id=f"a/{index}") for index in range(6)] + [FAILED]
    parts = [rows[:4], rows[4:]]
    paths = [tmp_path / f"{index}.parquet" for index in range(2)]
    for path, part in zip(paths, parts, strict=True):
        tables.write(tables.frame(part, RESULT), RESULT, path)
    whole = tables.frame(rows, RESULT)
    pd.testing.assert_frame_equal(tables.collect(paths[::-1], RESULT), whole)
    assert tables.collect([], RESULT).empty
    with pytest.raises(DataError, match="more than one row"):
        tables.collect([paths[0], paths[0]], RESULT)


def test_a_table_without_failures_may_miss_nothing_undeclared():
    plain = Table(
        "plain", "One model.", {"model": Column(str, "Name."), "n": Column(int, "Count.", ge=0)}, ("model",)
    )
    frame = tables.frame([{"model": "b", "n": 1}, {"model": "a", "n": 2}], plain)
    assert frame["model"].tolist() == ["a", "b"]
    assert frame["n"].dtype == np.int64
    with pytest.raises(DataError, match="column n"):
        tables.frame([{"model": "b"}], plain)
    with pytest.raises(DataError, match="column model"):
        tables.frame([{"n": 1}], plain)


def test_declarations_are_recorded_once(monkeypatch):
    monkeypatch.setattr(tables, "SCHEMAS", {})
    columns = {"model": Column(str, "Name.")}
    first = tables.schema("sizes", "One model.", columns, keys=("model",))
    assert tables.schema("sizes", "One model.", columns, keys=("model",)) is first
    assert list(tables.SCHEMAS.values()) == [first]
    with pytest.raises(TypeError, match="another table is called sizes"):
        tables.schema("sizes", "Something else.", columns)
    with pytest.raises(TypeError, match="not among its columns"):
        tables.schema("keys", "One model.", columns, keys=("image_id",))
    with pytest.raises(TypeError, match="description"):
        Column(str, "")
    with pytest.raises(TypeError, match="dtype"):
        Column(dict, "A mapping.")


def test_the_description_names_every_column():
    text = tables.describe_markdown([RESULT])
    assert text.startswith("## `result`\n")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(RESULT.columns)
    assert "| `radius` | float | L2 | > 0 | Radius of the ball. |" in lines
    assert (
        "| `border` | float |  | ≥ 0 or missing | Distance to the border; missing for smooth networks. |"
        in lines
    )
    assert "One row for each `image_id`, `radius`." in text


def test_the_pandera_schema_is_strict_and_described():
    schema = RESULT.pandera
    assert schema.strict
    assert schema.coerce
    assert schema.columns["radius"].metadata == {"unit": "L2"}
    assert all(column.description for column in schema.columns.values())
