"""Kill the workflow at random moments and start it again, many times: it must end as if nothing had happened.

    python tests/soak/kills.py [--kills 200] [--seed 0] [--target all] [--pages docs/soak]

First the configuration kills.yaml runs undisturbed. Then it runs again and again, and each time Snakemake
and all that it started are killed with SIGKILL. After each kill every artifact that exists must be complete
and as in the undisturbed run; no job that was reported finished may be started again; a run that comes to its
end must have the same files, and a further one nothing to do. Then all starts over in a new folder.

Every second run is aimed at a rule that was not hit yet, if there is one; the others die at a random time.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _artifacts
import _page
from _runs import Run, adopt_orphans, command, environment, never

CONFIG = Path(__file__).with_name("kills.yaml")
AT_START = 0.15  # share of the kills that fall before the first job has started


class SoakError(Exception):
    """What must not happen."""


@dataclass
class Tally:
    """What happened, over all runs.

    Attributes:
        kills, idle: Runs killed, and those of them in which no job was running.
        completed: Runs that came to their end.
        unlocked: Locks removed.
        hits: Jobs killed, by rule.
        started: Jobs started.
        files: Artifacts compared after kills.
        leftovers: Temporary files that kills left.
    """

    kills: int = 0
    idle: int = 0
    completed: int = 0
    unlocked: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    started: int = 0
    files: int = 0
    leftovers: set[Path] = field(default_factory=set)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed.

    Attributes:
        rules, seconds: Rule and wall time of each job, by its message.
        checksums: Checksum of each artifact, without times.
        startup: Seconds until the first job started.
    """

    rules: dict[str, str]
    seconds: dict[str, float]
    checksums: dict[str, str]
    startup: float


class Trial:
    """The configuration, run over and over in folders below ``place``.

    Args:
        place: An empty folder.
        targets: What Snakemake is asked for.
        seed: Seed of the moments of the kills.
    """

    def __init__(self, place: Path, targets: list[str], seed: int) -> None:
        self.place, self.targets, self.random = place, targets, random.Random(seed)
        self.config = place / "config.yaml"
        self.tally, self.count = Tally(), 0
        self.checked: dict[tuple[str, int, int], str] = {}
        self.undisturbed = self._undisturbed()

    def _run(self, folder: Path, *options: str) -> Run:
        self.count += 1
        arguments = command(folder, self.config, *self.targets, *options)
        return Run(arguments, folder, self.place / f"{self.count}.log", self.place / "caches")

    def _undisturbed(self) -> Undisturbed:
        folder = self.place / "undisturbed"
        folder.mkdir()
        serve_weights(self.place / "served", self.config)
        run = self._run(folder)
        run.watch(never)
        if run.process.returncode:
            raise SoakError(f"the undisturbed run failed: {run.complaint()}")
        if len(set(run.started.values())) < len(run.started):
            raise SoakError("two jobs have the same message")
        return Undisturbed(
            {run.started[job]: rule for job, rule in run.finished.items()},
            {message: end - start for message, (start, end) in run.times.items()},
            {
                name: _artifacts.checksum(path, name)
                for path in _artifacts.files(folder / "results")
                for name in [path.relative_to(folder / "results").as_posix()]
            },
            min(start for start, _ in run.times.values()) - run.began,
        )

    def soak(self, kills: int) -> None:
        """Kill runs ``kills`` times, more often where a rule was missed, and let the last come to its end."""
        while not self._enough(kills):
            folder = self.place / f"run{self.tally.completed}"
            folder.mkdir()
            self._until_complete(folder, kills)
            shutil.rmtree(folder)
            self.checked.clear()

    def _enough(self, kills: int) -> bool:
        missed = set(self.undisturbed.rules.values()) - set(self.tally.hits)
        return self.tally.kills >= (1.25 * kills if missed else kills)

    def _until_complete(self, folder: Path, kills: int) -> None:
        done: set[str] = set()
        patience = 1.0
        while True:
            last = self._enough(kills)
            self._unlock(folder)
            run = self._run(folder)
            killed = run.watch(never if last else self._deadline(run, patience))
            self.tally.started += len(run.started)
            if again := done & set(run.started.values()):
                raise SoakError(f"computed twice although finished: {sorted(again)}")
            done |= run.done
            if run.failed or (not killed and run.process.returncode):
                raise SoakError(f"a run that was started again failed: {run.complaint()}")
            if not killed:
                self._complete(folder)
                return
            self.tally.kills += 1
            self.tally.idle += not run.running
            self.tally.hits.update(self.undisturbed.rules[message] for message in run.running)
            # A run that gets nowhere is followed by one that lives longer, or a long job would never end.
            patience = 1.0 if run.done else 2 * patience
            self._compare(folder)
            run.log.unlink()
            running = ", ".join(sorted(run.running)) or "no job"
            print(f"kill {self.tally.kills} of {kills}: {running}", flush=True)

    def _deadline(self, run: Run, patience: float) -> Callable[[list[str]], float]:
        """Return when to kill, as a function of the jobs that have just started."""
        seconds = self.undisturbed.seconds
        work = patience * 2 * statistics.mean(seconds.values())
        early = self.random.random() < AT_START
        moment = run.began + self.random.uniform(0, self.undisturbed.startup) if early else float("inf")
        aimed = self.tally.kills % 2 == 1 and not early

        def deadline(new: list[str]) -> float:
            nonlocal moment, aimed
            if new and moment == float("inf"):
                moment = time.monotonic() + self.random.uniform(0, work)
            missed = [message for message in new if not self.tally.hits[self.undisturbed.rules[message]]]
            if aimed and missed:
                aimed = False
                moment = time.monotonic() + self.random.uniform(0, seconds[missed[0]])
            return moment

        return deadline

    def _unlock(self, folder: Path) -> None:
        """Remove the lock of a run that was killed, as Snakemake's own message and docs/running.md say."""
        if not any((folder / ".snakemake/locks").glob("*")):
            return
        done = subprocess.run(
            command(folder, self.config, "--unlock"),
            cwd=folder,
            env=environment(self.place / "caches"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SoakError(f"snakemake --unlock failed: {done.stderr[-2000:]}")
        self.tally.unlocked += 1

    def _compare(self, folder: Path) -> set[str]:
        """Compare the artifacts that are there with the undisturbed ones; return their names."""
        results, names = folder / "results", set()
        for path in _artifacts.files(results):
            name, state = path.relative_to(results).as_posix(), path.stat()
            if path.name.startswith("."):
                self.tally.leftovers.add(path)
                continue
            names.add(name)
            key = (name, state.st_ino, state.st_mtime_ns)
            if key not in self.checked:
                self.checked[key] = _artifacts.checksum(path, name)
                self.tally.files += 1
            if self.checked[key] != self.undisturbed.checksums.get(name):
                raise SoakError(f"{path} is not as in the undisturbed run")
        return names

    def _complete(self, folder: Path) -> None:
        if missing := set(self.undisturbed.checksums) - self._compare(folder):
            raise SoakError(f"not made: {sorted(missing)}")
        if stayed := [path for path in self.tally.leftovers if path.exists()]:
            raise SoakError(f"temporary files stayed: {sorted(stayed)}")
        again = self._run(folder)
        again.watch(never)
        if again.process.returncode or again.started:
            raise SoakError(f"a finished run is not left alone: {again.complaint()}")
        self.tally.completed += 1


def serve_weights(folder: Path, config: Path) -> None:
    """Serve a network's weights on this machine, and write the configuration that asks for them."""
    from curvelens import models, store

    chosen = yaml.safe_load(CONFIG.read_text())
    given = chosen["models"]["given"]
    weights = folder / "given.safetensors"
    models.save_weights(models.build("mlp", given["parameters"], 10, (1, 8, 8), seed=1), weights)
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given["weights_urls"] = [f"http://127.0.0.1:{server.server_port}/{weights.name}"]
    given["weights_sha256"] = store.sha256(weights)
    config.write_text(yaml.safe_dump(chosen))


def page(trial: Trial, seed: int) -> list[str]:
    """Return the parts of the page."""
    tally, undisturbed = trial.tally, trial.undisturbed
    jobs = Counter(undisturbed.rules.values())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = {
        "kills survived": tally.kills,
        "of them while no job was running (start, planning, between jobs)": tally.idle,
        "jobs killed": sum(tally.hits.values()),
        "rules hit": f"{len(tally.hits)} of {len(jobs)}",
        "runs that came to their end, each identical to the undisturbed one": tally.completed,
        "jobs of an undisturbed run": len(undisturbed.rules),
        "jobs started in all other runs": tally.started,
        "jobs started although reported finished": 0,
        "artifacts compared after kills": tally.files,
        "artifacts that were incomplete or different": 0,
        "temporary files that kills left behind, removed by the next run": len(tally.leftovers),
        "locks removed with `snakemake --unlock`": tally.unlocked,
        "CPU time": f"{(usage.ru_utime + usage.ru_stime) / 60:.0f} min",
    }
    return [
        " ".join((__doc__ or "").split("\n\n")[2].split()),
        f"Seed {seed}. What a user types after a kill, and the script does: `snakemake --unlock` if the run "
        "left a lock, then the same command again.",
        _page.table(["", ""], facts.items()),
        "Jobs killed while they ran, by rule, and how many jobs of the rule a run has:",
        _page.table(
            ["rule", "killed", "jobs"],
            [(f"`{rule}`", tally.hits[rule], jobs[rule]) for rule in sorted(jobs)],
        ),
        f"All {len(undisturbed.checksums)} artifacts are compared byte by byte, tables without their column "
        "`seconds` and rows of that metric. Of these it is checked that they are complete, since they tell "
        "measured times:",
        _page.table(
            ["artifact", "what differs"], [(f"`{name}`", why) for name, why in _artifacts.TOLD.items()]
        ),
    ]


def main() -> int:
    """Run the trial and write its page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="kills to survive (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of their moments (default: 0)")
    parser.add_argument("--target", nargs="*", default=[], help="what to ask Snakemake for (default: all)")
    parser.add_argument("--pages", type=Path, default=_page.PAGES, help="folder of the page")
    chosen = parser.parse_args()
    adopt_orphans()
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        trial = Trial(place, chosen.target, chosen.seed)
        trial.soak(chosen.kills)
    except SoakError as error:
        print(f"kills: {error}\nkills: the runs are kept in {place}", file=sys.stderr)
        return 1
    shutil.rmtree(place)
    print(_page.write("kills", "Killed at any moment", page(trial, chosen.seed), chosen.pages))
    return 0


if __name__ == "__main__":
    sys.exit(main())
