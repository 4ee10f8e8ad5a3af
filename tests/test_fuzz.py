"""Every reader of outside files against a few hundred malformed ones; tests/soak/fuzz.py tries many more."""

import re
import subprocess
import sys
from pathlib import Path

import fuzz_artifacts
import fuzz_pictures
import fuzz_texts
import fuzzing
import pytest

CASES = 200
READERS = {
    reader.name: reader for reader in fuzz_pictures.READERS + fuzz_texts.READERS + fuzz_artifacts.READERS
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_returns_what_it_promises_or_says_why_not(name, tmp_path):
    tally = fuzzing.Tally()
    with fuzzing.limited_memory():
        fuzzing.run(READERS[name], tmp_path, CASES, 0, tally)
    assert tally.cases >= CASES / 2  # hypothesis tries no case twice
    # A reader that refuses everything at its first check would pass as well, and be tested for nothing.
    assert 0.05 * tally.cases < tally.accepted < 0.95 * tally.cases
    assert len(tally.refused) >= READERS[name].ways
    assert max(tally.refused.values()) < 0.8 * tally.cases


@pytest.mark.parametrize(("read", "told"), [
    (lambda case, folder: 1 / 0, "division by zero"),
    (lambda case, folder: fuzzing.canary("x"), r"a case ran .*canary\('x',\)"),
    (lambda case, folder: (folder.parent / "outside").write_text("x"), r"a case ran .*open .*/outside"),
    (lambda case, folder: __import__("os").system("true"), r"a case ran .*os\.system"),
    (lambda case, folder: refuse("two parts and no more"), "says not what to do"),
    (lambda case, folder: refuse("other.txt: is odd; name another"), "does not name the file"),
    (lambda case, folder: bytearray(2 * fuzzing.MEMORY), "MemoryError"),
])  # fmt: skip
def test_whatever_misbehaves_is_found(read, told, tmp_path):
    reader = fuzzing.Reader("a reader", fuzz_pictures.RARELY, read, lambda value: None, ("file.txt",))
    folder = tmp_path / "case"
    folder.mkdir()
    with pytest.raises((AssertionError, ArithmeticError, MemoryError)) as caught, fuzzing.limited_memory():
        fuzzing.attempt(reader, folder, [], fuzzing.Tally())
    assert re.search(told, f"{caught.type.__name__}: {caught.value}")


def test_an_endless_case_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzzing, "CPU_SECONDS", 0.2)

    def endless(case, folder):
        while True:
            try:
                list(range(1000))
            except Exception:
                continue

    reader = fuzzing.Reader("a reader", fuzz_pictures.RARELY, endless, lambda value: None)
    with pytest.raises(fuzzing.MisbehavedError, match=r"took more than 0\.2 s of CPU"):
        fuzzing.attempt(reader, tmp_path, [], fuzzing.Tally())


def refuse(text):
    raise fuzz_texts.ConfigError(text)


def test_the_long_trial_writes_its_page(tmp_path):
    script = Path(__file__).parent / "soak/fuzz.py"
    options = ["--cases", "150", "--readers", "label tables", "--pages", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(script), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "fuzz.md").read_text(encoding="utf-8")
    assert re.search(r"^1\d\d cases in \d+ s of CPU", text, re.MULTILINE)
    assert re.search(r"^\| label tables \| 1\d\d \| \d+ \| \d+% \| \d+% \| \d+ \|", text, re.MULTILINE)
    assert "`datasets/_listing.py:list_table:" in text
