"""The text of every error is one line that a terminal shows as it stands, whatever names are quoted in it."""

import pickle

import pytest

from curvelens.errors import LONGEST, CurvelensError, DataError, brief, printable


@pytest.mark.parametrize(("text", "shown"), [
    ("plain: é, 猫, 🐈; remedy", "plain: é, 猫, 🐈; remedy"),
    ("two\nlines", "two lines"),
    ("two \r\n  lines\u2028more", "two lines more"),
    ("red \x1b[31m", r"red \x1b[31m"),
    ("tab\there, NUL\0", r"tab\there, NUL\x00"),
    ("txt.\u202egpj", r"txt.\u202egpj"),
    ("half \ud83d of a pair", r"half \ud83d of a pair"),
])  # fmt: skip
def test_what_does_not_print_is_written_as_an_escape(text, shown):
    assert printable(text) == shown
    assert str(CurvelensError(text)) == shown


@pytest.mark.parametrize("text", ["x" * 10**6, "\x1b" * 10**6, "ab\n" * 10**6])
def test_a_long_text_keeps_its_ends(text):
    shown = printable("first " + text + " last")
    assert len(shown) <= LONGEST
    assert shown.startswith("first ")
    assert shown.endswith(" last")


def test_errors_cross_the_border_between_processes():
    again = pickle.loads(pickle.dumps(DataError("file\n: gone; fetch it")))  # noqa: S301
    assert isinstance(again, DataError)
    assert str(again) == "file : gone; fetch it"


def test_values_are_shown_in_brief():
    bomb = "x"
    for _ in range(40):
        bomb = [bomb] * 9
    endless = []
    endless.append(endless)
    assert len(brief(bomb)) < 10_000
    assert len(brief(endless)) < 100
    assert brief("short") == "'short'"
    assert len(brief("x" * 10**6)) < 200
