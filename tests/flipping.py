"""Gateways of this process over a store in which bits flip, and what they make of it.

    scene = Scene(folder, draws, fake, f"sqlite://{path}")
    with scene.gateway() as gateway:
        changed = gateway.ask(texts)    # raises where it is answered with a wrong vector

They keep nothing in memory, so every answer is read from the store.
"""

import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config import parse
from tests.draws import Draws, Witness
from tests.running import Running, one_model
from tests.upstream import FakeOpenAI

FOUND = "damaged cache entry"
SET_ASIDE = "cache file set aside"
_EXPECTED = {FOUND, SET_ASIDE, "cache has begun anew", "cache is back"}
_TRIES = 50
_BATCH = 250


@dataclass
class Tally:
    """What became of the flips of a run."""

    flips: int = 0
    found: int = 0
    """Damaged entries that were found and counted."""
    replaced: int = 0
    """Vectors that were made again, of entries that were damaged or not there any more."""
    set_aside: int = 0
    """Files that were given up."""

    def note(self, gateway: "Opened", changed: Sequence[str]) -> None:
        """Add what a gateway found, and which texts have another vector by that."""
        self.found += gateway.found
        self.set_aside += gateway.set_aside
        self.replaced += len(changed)


class Opened:
    """A gateway that is asked for texts; it complains of nothing but damage."""

    def __init__(self, running: Running, witness: Witness) -> None:
        self.running = running
        self._witness = witness

    def ask(self, texts: Sequence[str]) -> list[str]:
        """Ask for the texts; return those whose vector is another now, drawn since."""
        changed = []
        for start in range(0, len(texts), _BATCH):
            part = texts[start : start + _BATCH]
            changed += self._witness.saw_newer(part, self._stored(part))
        return changed

    def _stored(self, texts: Sequence[str]) -> list[str]:
        """Ask until the answer is stored: on a busy machine a store may seem to be away."""
        for _ in range(_TRIES):
            answer = self.running.embed(texts, encoding_format="base64")
            assert answer.status_code == 200, answer.text
            if "unshared" not in answer.headers["cache-status"]:
                return [item["embedding"] for item in answer.json()["data"]]
            time.sleep(0.1)
        raise AssertionError(self.running.log)

    @property
    def found(self) -> int:
        """How many damaged entries were found: what is counted is what is logged."""
        counted = self.running.metric("gateway_cache_corrupt_entries_total")
        assert counted == len(self.said(FOUND))
        return int(counted)

    @property
    def set_aside(self) -> int:
        """How many files were given up."""
        return len(self.said(SET_ASIDE))

    @property
    def meetings(self) -> int:
        """How often it asked its store for the facts."""
        return int(self.running.metric("gateway_cache_operations_total", operation="facts"))

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event."""
        return [line for line in self._lines() if line["event"] == event]

    def assert_calm(self) -> None:
        """Raise AssertionError where it complained of anything else."""
        for line in self._lines():
            assert line["event"] in _EXPECTED or line.get("reason") == "timeout", line

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.running.log.splitlines()]


class Scene:
    """A store, an upstream behind it, and a witness of all that is answered."""

    def __init__(self, folder: Path, draws: Draws, fake: FakeOpenAI, store: str) -> None:
        """`store` is the address."""
        self.witness = Witness(draws)
        self._folder = folder
        rest = f'[cache]\nstore = "{store}"\nmemory = "0"'
        self._toml = one_model(fake.base_url, rest=rest)

    @contextmanager
    def gateway(self, witness: Witness | None = None) -> Iterator[Opened]:
        """Run a gateway for as long as the block runs, from the first thing to the last."""
        with tempfile.TemporaryDirectory(dir=self._folder) as made:
            config = parse(self._toml, source=None, environ={}, base_dir=self._folder)
            running = Running(config, Path(made)).start()
            try:
                gateway = Opened(running, witness or self.witness)
                yield gateway
                gateway.assert_calm()
            finally:
                running.stop()
                running.join()


def flip(file: Path, chance: random.Random, spot: tuple[int, int] | None = None) -> tuple[int, int]:
    """Flip a bit anywhere in a file, or within (begin, length); return its byte and its place."""
    begin, length = spot or (0, file.stat().st_size)
    at, bit = begin + chance.randrange(length), chance.randrange(8)
    with file.open("r+b") as opened_file:
        opened_file.seek(at)
        (was,) = opened_file.read(1)
        opened_file.seek(at)
        opened_file.write(bytes([was ^ 1 << bit]))
    return at, bit


def flipped(value: bytes, chance: random.Random) -> bytes:
    """Return a value with one bit flipped."""
    at = chance.randrange(len(value))
    return value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :]
