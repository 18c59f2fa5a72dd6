"""What a fault is, and what may come of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.heavy.faulty.server import Call

Fault = Callable[[Call], Awaitable[None]]
Outcome = tuple[int, str | None]
"""A status and the error's code; the status is 0 for an error within a stream."""

GOOD: Outcome = (200, None)
UNREACHABLE: Outcome = (502, "upstream_unreachable")
INVALID: Outcome = (502, "upstream_invalid_response")
OTHER_WIDTH: Outcome = (502, "upstream_other_width")
LATE: Outcome = (504, "upstream_timeout")
FAILED: Outcome = (502, "upstream_error")
AWAY: Outcome = (503, "upstream_unavailable")
ENCODED: Outcome = (502, "upstream_answer_encoding")
LARGE: Outcome = (502, "upstream_answer_too_large")
REDIRECT: Outcome = (502, "upstream_redirect")
CUT: Outcome = (502, "upstream_stream_cut")

EVER = 3600.0
"""Seconds; whoever waits gives up before."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One fault, and what may come of it."""

    do: Fault
    outcomes: frozenset[Outcome]
    costly: bool = False
    """Whether it takes long to go wrong: it is tried less often."""


class Kinds(dict[str, Kind]):
    """Faults by name."""

    def of(self, *outcomes: Outcome, costly: bool = False) -> Callable[[Fault], Fault]:
        """Note a fault under the name of its function."""

        def note(do: Fault) -> Fault:
            self[do.__name__.replace("_", "-")] = Kind(do, frozenset(outcomes), costly)
            return do

        return note
