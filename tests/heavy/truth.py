"""Promises P1 to P4 in a storm: random batches through several workers over stores that fail.

    python -m tests.heavy.truth [--batches 20000] [--seed N] [--minutes M]

What stands around the workers is in `storm`; every vector tells whose it is (see `telling`), and is
judged when it comes back (see `judge`, and for what is asked upstream `worker`). What fails is told
with the seed: the plan is the same for the same seed, the order of events only nearly.
"""

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import uvloop

from tests.heavy.storm.houses import BrokenPromiseError, Storm
from tests.heavy.storm.plan import batches
from tests.redis_server import serve_redis


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run saw."""

    batches: int
    texts: int
    asked: int
    """Texts that upstreams were asked for."""
    kept: int
    """Vectors that the authorities hold at the end."""
    count: Mapping[str, int]
    """Batches by what became of them, and texts by where their vectors came from."""
    seconds: float

    def told(self) -> str:
        """Return it in a few lines."""
        counted = ", ".join(f"{what} {number:,}" for what, number in self.count.items())
        return (
            f"{self.batches:,} batches with {self.texts:,} texts in {self.seconds:.0f} s, none "
            f"wrong: {self.asked:,} texts asked upstream, {self.kept:,} kept by the stores\n"
            f"{counted}"
        )


def storm(
    seed: int,
    directory: Path,
    *,
    number: int | None,
    seconds: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **kinds: type,
) -> Outcome:
    """Make a run of so many batches, or of so many seconds. Raises BrokenPromiseError.

    `kinds` are Storm's, for other stores and upstreams than the usual.
    """
    with serve_redis(directory / "redis") as redis:
        # libuv keeps a pipe for ever, from its first loop on.
        uvloop.run(asyncio.sleep(0))
        descriptors = _descriptors()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            run = Storm(seed, directory, redis, **kinds)
            outcome = runner.run(_weather(run, seed, number, seconds, progress))
        left = {
            "descriptors": _descriptors() - descriptors,
            "connections to Redis": len(redis.admin.client_list()) - 1,
        }
    if any(more > 0 for more in left.values()):
        raise BrokenPromiseError(f"at the end are left over: {left}")
    return outcome


async def _weather(
    run: Storm,
    seed: int,
    number: int | None,
    seconds: float | None,
    progress: Callable[[str], None],
) -> Outcome:
    began = time.monotonic()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: run.books.complain(None, f"nobody took note of {context}")
    )
    try:
        await run.open()
        plan = islice(batches(seed, len(run.workers)), number)
        if seconds is not None:
            plan = takewhile(lambda _: time.monotonic() < began + seconds, plan)
        await run.run(plan, progress)
        progress("reading everything once more")
        kept = await run.look_again()
    finally:
        await run.close()
    return Outcome(
        batches=run.batches,
        texts=run.texts,
        asked=run.books.asked_texts,
        kept=kept,
        count=dict(sorted(run.judge.count.items())),
        seconds=time.monotonic() - began,
    )


def _descriptors() -> int:
    gc.collect()  # what was left open by others before may be closed now
    return len(list(Path("/proc/self/fd").iterdir()))


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--minutes", type=float, help="go on for so long, however many batches")
    asked = parser.parse_args()

    def progress(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    progress(f"seed {asked.seed}")
    with tempfile.TemporaryDirectory() as directory:
        try:
            outcome = storm(
                asked.seed,
                Path(directory),
                number=None if asked.minutes else asked.batches,
                seconds=asked.minutes and 60 * asked.minutes,
                progress=progress,
            )
        except BrokenPromiseError as broken:
            sys.exit(f"seed {asked.seed}: {broken}")
    sys.stdout.write(f"seed {asked.seed}: {outcome.told()}\n")


if __name__ == "__main__":
    main()
