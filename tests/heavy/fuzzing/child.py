"""One process that fuzzes one target until its time is over, or something is found.

    python -m tests.heavy.fuzzing.child NAME SECONDS SEED CORPUS

With the package atheris (extra `fuzz`) guided by which lines an input reaches; without it blindly.
Exits with 0 where nothing was found. What was found is told with its input in base64; so that it
can be tried again, `tests.heavy.fuzz --again` takes that.
"""

import random
import resource
import signal
import sys
import time
import traceback
from base64 import b64encode
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from tests.heavy.fuzzing.mutations import LARGEST, mutate
from tests.heavy.fuzzing.targets import load

try:
    import atheris
except ImportError:  # the extra [fuzz] has it
    atheris = None

SLOWEST = 1.0
"""Seconds of processor time that an input may take."""
MEMORY = 1024
"""MiB that the inputs may take at any time."""
_HANGS = 20
"""Seconds after which an input does not end."""
_GROWN = 2000
"""Inputs that the blind way keeps to make others from."""


def most_taken() -> int:
    """Return the most MiB that were taken; before we began, by who started us (Linux)."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) >> (20 if sys.platform == "darwin" else 10)


class FoundError(Exception):
    """An input that takes too long, or too much memory."""


def watched(try_one: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return `try_one` with FoundError raised for what takes too long."""

    def one(data: bytes) -> None:
        began = time.process_time()
        try_one(data)
        if (took := time.process_time() - began) > SLOWEST:
            raise FoundError(f"took {took:.1f} s")

    return one


def blindly(
    try_one: Callable[[bytes], None], corpus: list[bytes], words: Any, seconds: float, seed: int
) -> int:
    """Try inputs for so long; return how many. What is raised has its input as a note."""
    chance, runs, until = random.Random(seed), 0, time.monotonic() + seconds
    allowed = MEMORY + most_taken()
    for data in corpus:
        _try(try_one, data)
    while time.monotonic() < until:
        data = mutate(chance.choice(corpus), words, chance)
        _try(try_one, data)
        runs += 1
        if len(corpus) < _GROWN and len(data) < 4096:
            corpus.append(data)
        if not runs % 1000 and most_taken() > allowed:
            raise FoundError(f"more than {MEMORY} MiB were taken")
    return runs


def _try(try_one: Callable[[bytes], None], data: bytes) -> None:
    signal.alarm(_HANGS)
    try:
        try_one(data)
    except BaseException as error:
        error.add_note(f"Base64: {b64encode(data).decode()}")
        raise
    finally:
        signal.alarm(0)


def _hung(*_: object) -> NoReturn:
    raise FoundError(f"not done after {_HANGS} s")


def _guided(
    try_one: Callable[[bytes], None], words: Any, seconds: float, seed: int, corpus: Path
) -> None:
    """Let libFuzzer do it; it never returns."""

    def other(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return bytes(atheris.Mutate(data, most))
        return mutate(data, words, random.Random(number))[:most]

    dictionary = corpus.with_suffix(".words")
    spelled = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
    dictionary.write_text("".join(f'"{word}"\n' for word in spelled))
    options = {
        "max_total_time": int(seconds), "timeout": _HANGS, "rss_limit_mb": MEMORY + most_taken(),
        "max_len": LARGEST, "len_control": 20, "seed": seed, "dict": dictionary,
        "artifact_prefix": f"{corpus.parent}/", "print_final_stats": 1,
    }  # fmt: skip
    arguments = ["fuzz", *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    atheris.Setup(arguments, try_one, custom_mutator=other)
    atheris.Fuzz()


def main() -> None:
    """Fuzz."""
    name, seconds, seed, corpus = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    guide = atheris.instrument_imports(include=["gateway"]) if atheris else nullcontext()
    with guide:
        target = load(name)
        try_one = watched(target.try_one)
    directory = Path(corpus)
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed_input in enumerate(target.seeds):
        (directory / f"seed-{number}").write_bytes(seed_input)
    if atheris:
        _guided(try_one, target.words, seconds, seed, directory)
    signal.signal(signal.SIGALRM, _hung)
    known = [file.read_bytes() for file in sorted(directory.iterdir())]
    try:
        runs = blindly(try_one, known, target.words, seconds, seed)
    except BaseException:  # noqa: BLE001  # whatever it is, it is what we look for
        traceback.print_exc()
        sys.exit(1)
    sys.stderr.write(f"Done {runs} runs\n")


if __name__ == "__main__":
    main()
