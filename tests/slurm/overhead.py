"""What Slurm costs a job of seconds: the same jobs submitted one by one, as an array, as a group, run here.

    python tests/slurm/overhead.py [--jobs 8]

Prints a table of seconds, which profiles/README.md repeats: the choice of local rules rests on it. Needs an
idle machine, and what tests/slurm/cluster.py needs.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cluster

PROFILE = Path(__file__).resolve().parents[2] / "profiles/slurm"
SNAKEFILE = """
rule all:
    localrule: True
    input: expand("{{number}}", number=range({jobs}))

rule one:
    localrule: {here}
    output: "{{number}}"
    shell: "touch {{output}}"
"""
WAYS = {
    "a Slurm job each": [],
    "one array": ["--slurm-array-jobs", "one"],
    "one group": ["--groups", "one=all", "--group-components", "all={jobs}", "--cores", "1"],
    "here": [],
}


def seconds(way: str, jobs: int) -> float:
    """Run the jobs in one of the ways; return what that took, Snakemake's own start and end included."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(SNAKEFILE.format(jobs=jobs, here=way == "here"))
        options = [option.format(jobs=jobs) for option in WAYS[way]]
        quick = ["--slurm-init-seconds-before-status-checks", "2"]
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", str(PROFILE), *quick, *options]
        start = time.monotonic()
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=1800)
        return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=8, help="how many in each way")
    jobs = parser.parse_args().jobs
    try:
        cluster.up()
        print("| way | seconds for all | for each |\n|---|---|---|")
        for way in WAYS:
            taken = seconds(way, jobs)
            print(f"| {way} | {taken:.0f} | {taken / jobs:.1f} |", flush=True)
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
