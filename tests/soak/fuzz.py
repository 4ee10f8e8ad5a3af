"""Malformed input for every reader: each case is read right, or refused with one line.

    python tests/soak/fuzz.py [--cases 110000] [--seed 0]

Each reader has a process of its own, one after the other, so that its memory can be told and a crash of a
decoder is found. See tests/fuzzing.py for what a case may do.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import _page  # noqa: E402
import fuzz_artifacts  # noqa: E402
import fuzz_pictures  # noqa: E402
import fuzz_texts  # noqa: E402
import fuzzing  # noqa: E402

READERS = {
    reader.name: reader for reader in fuzz_pictures.READERS + fuzz_texts.READERS + fuzz_artifacts.READERS
}
PART = 2000  # cases that hypothesis draws at a time; it remembers them, to try none twice


@dataclass
class Trial:
    """What became of one reader's cases.

    Attributes:
        tally: The cases by what became of them.
        seconds: CPU time, s.
        memory: Growth of the process's peak memory from its hundredth case to its last, MiB.
        bugs: Cases that misbehaved, made small, with what happened.
    """

    tally: fuzzing.Tally = field(default_factory=fuzzing.Tally)
    seconds: float = 0.0
    memory: float = 0.0
    bugs: list[str] = field(default_factory=list)


def trial(name: str, cases: int, seed: int) -> Trial:
    """Try a reader with ``cases`` cases."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    found = Trial()
    started, part = time.process_time(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, fuzzing.limited_memory():
        peak = 0
        while found.tally.cases < cases and part < 3 + 2 * cases / PART and len(found.bugs) < 10:
            # The first part is small: what it loads and caches is no growth.
            wanted = min(PART if part else 100, cases - found.tally.cases)
            try:
                fuzzing.run(READERS[name], Path(folder), wanted, 1000 * seed + part, found.tally)
            except Exception as error:
                several = isinstance(error, ExceptionGroup)
                found.bugs += [
                    "".join(traceback.format_exception(one))
                    for one in (error.exceptions if several else [error])
                ]
            peak = peak or _peak()
            part += 1
        found.memory = _peak() - peak
    found.seconds = time.process_time() - started
    return found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def page(trials: dict[str, Trial], pages: Path) -> Path:
    """Write the page of a run without bugs."""
    cases = sum(one.tally.cases for one in trials.values())
    kinds = sum(len(one.tally.refused) for one in trials.values())
    seconds = sum(one.seconds for one in trials.values())
    said = (
        f"{cases:,} cases in {seconds:,.0f} s of CPU, {cases / seconds:,.0f} a second. Each was read as "
        f"what it is, or refused with one line in one of {kinds} ways; none raised another exception, ran "
        f"anything, wrote outside its folder, took {fuzzing.CPU_SECONDS:g} s, or needed "
        f"{fuzzing.MEMORY / 2**30:g} GiB."
    )
    meaning = (
        "A way is a line of the library that refuses, and the exception that led to it; *commonest* is the "
        "share of the refused cases that went the commonest way. *Slowest* is the slowest case. *Memory* is "
        "the growth of the process's peak after its first hundred cases. Cases are changes of valid files: "
        "see `tests/fuzz_pictures.py`, `tests/fuzz_texts.py` and `tests/fuzz_artifacts.py`."
    )
    head = [
        "reader",
        "cases",
        "a second",
        "read",
        "refused",
        "ways",
        "commonest",
        "slowest (s)",
        "memory (MiB)",
    ]
    rows = [_row(name, one) for name, one in trials.items()]
    ways = ["## Ways to be refused", "The most frequent of each reader, with an example."]
    return _page.write(
        "fuzz", "Malformed input", [said, _page.table(head, rows), meaning, *ways, _ways(trials)], pages
    )


def _row(name: str, one: Trial) -> list[str]:
    tally = one.tally
    refused = sum(tally.refused.values())
    commonest = max(tally.refused.values(), default=0) / max(refused, 1)
    shares = (f"{part / tally.cases:.0%}" for part in (tally.accepted, refused))
    speed = tally.cases / max(one.seconds, 1e-9)
    return [
        *(name, f"{tally.cases:,}", f"{speed:,.0f}", *shares, str(len(tally.refused)), f"{commonest:.0%}"),
        *(f"{tally.slowest:.2f}", f"{one.memory:.0f}"),
    ]


def _ways(trials: dict[str, Trial], most: int = 4) -> str:
    rows = []
    for name, one in trials.items():
        for way, count in one.tally.refused.most_common(most):
            example = one.tally.examples[way].replace(tempfile.gettempdir(), "").replace("|", "\\|")
            rows.append([name, f"{count:,}", f"`{way}`", f"`{example.replace('`', chr(39))[:160]}`"])
    return _page.table(["reader", "cases", "way", "example"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every reader and write the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=110_000, help="cases of all readers together")
    parser.add_argument("--seed", type=int, default=0, help="other seeds draw other cases")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), help="those to try")
    parser.add_argument("--pages", type=Path, default=_page.PAGES, help="folder of the page")
    options = parser.parse_args(arguments)
    shares = {name: READERS[name].share for name in options.readers}
    trials: dict[str, Trial] = {}
    for name, share in shares.items():
        cases = max(1, round(options.cases * share / sum(shares.values())))
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as process:
            try:
                trials[name] = process.submit(trial, name, cases, options.seed).result()
            except BrokenProcessPool:
                trials[name] = Trial(bugs=["the process died: a decoder crashed, or memory ran out"])
        one = trials[name]
        print(f"{name}: {one.tally.cases:,} cases, {one.seconds:.0f} s, {len(one.bugs)} bugs", flush=True)
        for bug in one.bugs:
            print(f"{name}: {bug}", file=sys.stderr, flush=True)
    if any(one.bugs for one in trials.values()):
        return 1
    print(page(trials, options.pages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
