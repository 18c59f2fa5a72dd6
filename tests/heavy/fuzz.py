"""Strange bytes for all that reads what somebody else has written: only documented errors come out.

    python -m tests.heavy.fuzz [--target NAME]... [--seconds 60] [--jobs 2] [--corpus DIRECTORY]
    python -m tests.heavy.fuzz --target NAME --again BASE64

The targets are in `fuzzing`. An input that raises anything else, takes a second of processor time
or much memory is a finding; it is told in base64, and `--again` tries it alone. With the extra
[fuzz] (atheris) inputs are led by the lines they reach, and `--corpus` keeps what was learned.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.heavy.fuzzing.targets import NAMES, load
from tests.processes import ROOT

_ENDS_WITHIN = 60.0
"""Seconds behind its time that a child may take to begin and to end."""


def fuzz(name: str, seconds: float, seed: int, corpus: Path) -> str:
    """Fuzz one target in a process of its own; return what it did in a line.

    Raises AssertionError, with what the child said, for a finding.
    """
    command = [sys.executable, "-m", "tests.heavy.fuzzing.child", name, str(seconds), str(seed)]
    child = subprocess.run(
        [*command, str(corpus / name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + _ENDS_WITHIN,
        errors="replace",
        check=False,
    )
    assert child.returncode == 0, f"{name}: {child.stdout[-4000:]}\n{_telling(child.stderr)}"
    runs = re.search(r"Done (\d+) runs", child.stderr)
    assert runs is not None, child.stderr[-2000:]
    reached = re.findall(r"cov: (\d+)", child.stderr)
    how = f"{int(reached[-1]):,} places reached" if reached else "without guidance"
    return f"{name}: {int(runs[1]):,} inputs, {how}"


def _telling(said: str) -> str:
    """Return what a child said without its progress, and the input in base64 only."""
    lines = [line for line in said.splitlines() if not line.startswith(("#", "0x", "INFO"))]
    return "\n".join(line for line in lines if len(line) < 2000 or line.startswith("Base64"))


def _all(names: Sequence[str], seconds: float, seed: int, jobs: int, corpus: Path) -> bool:
    """Fuzz these targets, some at a time; return whether nothing was found."""
    sound = True
    with ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(fuzz, name, seconds, seed, corpus) for name in names]
        for run in runs:
            try:
                print(run.result(), flush=True)
            except AssertionError as found:
                sound = False
                print(found, file=sys.stderr)
    return sound


def main() -> None:
    """Fuzz everything, or what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31))
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--again", metavar="BASE64")
    asked = parser.parse_args()
    names = asked.target or NAMES
    if asked.again is not None:
        for name in names:
            load(name).try_one(b64decode(asked.again))
        return
    print(f"seed {asked.seed}, {asked.seconds:.0f} s for each of {', '.join(names)}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        corpus = asked.corpus or Path(directory)
        if not _all(names, asked.seconds, asked.seed, asked.jobs, corpus):
            sys.exit(1)


if __name__ == "__main__":
    main()
