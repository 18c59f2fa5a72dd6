"""What is fuzzed: a function that takes bytes, and bytes to begin with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A reader. Whatever its `try_one` raises is a finding."""

    try_one: Callable[[bytes], None]
    seeds: Sequence[bytes]
    """Sound inputs, from which all others are made."""
    words: Sequence[bytes] = ()
    """What means something to the reader."""
