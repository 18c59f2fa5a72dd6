"""Bits that flip in stores: no wrong vector is served, nothing fails, and what is found is counted.

    python -m tests.heavy.flips [--flips 1000]

In SQLite files (see flipped_files), and in the values and the facts of Redis. Every vector is
compared with all that the upstream ever said for its text; it is the one that was stored first, or
one that was made since, and then that is the only one.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.draws import Draws
from tests.flipping import Opened, Scene, Tally, flipped
from tests.heavy.flipped_files import (
    Files,
    destroy,
    flip_anything_in_use,
    flip_at_rest,
    flip_records_in_use,
    make_killed,
    make_resting,
)
from tests.redis_server import RedisServer, serve_redis
from tests.upstream import FakeOpenAI, serve

NARROW, WIDE = 64, 1536
"""Widths of vectors: of the first, several fit a page of SQLite; one of the others takes two."""
MANY = 3000
"""Wide vectors that make a file much larger than the pages that SQLite keeps."""

_TEXTS = [f"text {number}" for number in range(64)]
_FACTS = b"embgw:1:facts"


class Shared(Scene):
    """A Redis, and gateways that share it."""

    def __init__(self, folder: Path, draws: Draws, fake: FakeOpenAI, server: RedisServer) -> None:
        self.redis = server.admin
        super().__init__(folder, draws, fake, server.url)


def flip_values(shared: Shared, flips: int, tally: Tally, *, seed: int) -> None:
    """Flip bits of values: each is found once, and one vector is made again."""
    chance = random.Random(seed)
    with shared.gateway() as gateway:
        gateway.ask(_TEXTS)
        names = [name for name in shared.redis.scan_iter() if name != _FACTS]
        assert len(_TEXTS) == len(names)
        replaced = []
        for number in range(flips):
            name = chance.choice(names)
            shared.redis.set(name, flipped(shared.redis.get(name), chance))
            changed = gateway.ask(_TEXTS)
            assert (number + 1, 1) == (gateway.found, len(changed))
            replaced += changed
        assert gateway.ask(_TEXTS) == []
        tally.note(gateway, replaced)
    tally.flips += flips


def flip_facts(shared: Shared, flips: int, tally: Tally, *, seed: int) -> None:
    """Flip bits of facts, in names and values, under one gateway; then start another."""
    chance = random.Random(seed)
    with shared.gateway() as gateway:
        gateway.ask(_TEXTS)
        gateway.running.wait_until(lambda: shared.redis.hlen(_FACTS) == 4)
        for _ in range(flips):
            name, value = chance.choice(sorted(shared.redis.hgetall(_FACTS).items()))
            both = flipped(name + value, chance)
            shared.redis.hdel(_FACTS, name)
            shared.redis.hset(_FACTS, both[: len(name)], both[len(name) :])
            try:
                _ask_two(shared, gateway)
            except BaseException as failure:
                failure.add_note(f"{name!r}: {value!r} had become {both!r}")
                raise
        assert gateway.found == 0
    tally.flips += flips


def _ask_two(shared: Shared, gateway: Opened) -> None:
    """Ask the one that has met the damage, and one that begins with it: nothing has changed."""
    met = gateway.meetings
    gateway.running.wait_until(lambda: gateway.meetings >= met + 2)
    assert gateway.ask(_TEXTS) == []
    with shared.gateway() as second:
        assert second.ask(_TEXTS) == []
        assert second.found == 0


def run(flips: int, *, seed: int = 1, many: int = MANY) -> Mapping[str, Tally]:
    """Flip so many bits in all; return what became of those in each place.

    Raises AssertionError. A file of `many` wide vectors is the one that is in use.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    share = max(1, flips // 20)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))

        def upstream(width: int) -> tuple[Draws, FakeOpenAI]:
            draws = Draws()
            fake = draws.upstream(width)
            stack.enter_context(serve(fake))
            return draws, fake

        files = Files(folder / "rested", *upstream(NARROW))
        resting = make_resting(files)
        flip_at_rest(files, resting, 9 * share, tallies["a file at rest"], seed=seed)
        destroy(files, tallies["files destroyed"], seed=seed)
        files = Files(folder / "killed", *upstream(NARROW))
        killed = make_killed(files)
        flip_at_rest(files, killed, 3 * share, tallies["a file as kill -9 left it"], seed=seed)
        files = Files(folder / "used", *upstream(WIDE))
        asked = [f"text {number}" for number in range(many)]
        flip_records_in_use(files, asked, 2 * share, tallies["records in use"], seed=seed)
        flip_anything_in_use(files, asked, 2 * share, tallies["a file in use"], seed=seed)
        server = stack.enter_context(serve_redis(folder / "redis"))
        shared = Shared(folder, *upstream(NARROW), server)
        flip_values(shared, 3 * share, tallies["values in Redis"], seed=seed)
        flip_facts(shared, share, tallies["facts in Redis"], seed=seed)
    return tallies


def main() -> None:
    """Run the whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    asked = parser.parse_args()
    began = time.monotonic()
    for place, tally in run(asked.flips).items():
        sys.stdout.write(
            f"{place}: {tally.flips} flips, {tally.found} damaged entries found, {tally.replaced} "
            f"vectors made again, {tally.set_aside} files set aside\n"
        )
    seconds = time.monotonic() - began
    sys.stdout.write(f"in {seconds:.0f} s; no wrong vector, no failure, no crash\n")


if __name__ == "__main__":
    main()
