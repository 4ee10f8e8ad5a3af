"""Run every benchmark of this folder, one after the other (`make bench`), into docs/benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    out = HERE.parent / "docs/benchmarks"
    failed = []
    for script in sorted(HERE.glob("[!_]*.py")):
        if script.name != Path(__file__).name:
            print(f"== {script.name}", flush=True)
            done = subprocess.run([sys.executable, str(script), "--out", str(out)], check=False)
            failed += [script.name] * (done.returncode != 0)
    print(f"failed: {', '.join(failed)}" if failed else f"all done: {out}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
