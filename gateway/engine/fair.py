"""Who is next: texts of many requests, ordered so that each request gets its share.

Self-clocked fair queueing (Golestani, INFOCOM 1994). Every request is a flow; a text's tag is the
virtual time at which it would be done if all flows were served at once, and the smallest tag goes
first. Virtual time is the tag of the text last taken. So a short text overtakes a long batch, and
a batch is not starved by a stream of short ones: their tags grow with virtual time, its own stay.
(With start tags, the other common rule, one-text requests would all carry the current time, and a
batch would wait for as long as they keep coming.)

A data structure for one thread; knows nothing of locks, HTTP or what is done with a text.
"""

import heapq
from collections.abc import Sequence
from typing import Generic, TypeVar

J = TypeVar("J")


class Flow(Generic[J]):
    """The jobs of one request, taken in order. `costs` are positive and in any one unit."""

    __slots__ = ("costs", "dropped", "jobs", "tag", "taken")

    def __init__(self, jobs: Sequence[J], costs: Sequence[float]) -> None:
        self.jobs = jobs
        self.costs = costs
        self.taken = 0
        self.tag = 0.0
        self.dropped = False

    @property
    def waiting(self) -> int:
        """Jobs that have not been taken."""
        return 0 if self.dropped else len(self.jobs) - self.taken


class FairQueue(Generic[J]):
    """Flows with jobs left, by the tag of their next job; equal tags in order of arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Flow[J]]] = []
        self._now = 0.0
        self._arrivals = 0

    def put(self, flow: Flow[J]) -> None:
        """Add a flow with at least one job."""
        self._arrivals += 1
        flow.tag = self._now + flow.costs[0]
        heapq.heappush(self._heap, (flow.tag, self._arrivals, flow))

    def take(self) -> tuple[Flow[J], int] | None:
        """Return the next job's flow and its position there, or None where nothing waits."""
        heap = self._heap
        while heap:
            tag, arrival, flow = heap[0]
            if flow.dropped:
                heapq.heappop(heap)
                continue
            self._now = tag
            position = flow.taken
            flow.taken = after = position + 1
            if after < len(flow.jobs):
                flow.tag = tag + flow.costs[after]
                heapq.heapreplace(heap, (flow.tag, arrival, flow))
            else:
                heapq.heappop(heap)
            return flow, position
        return None

    def drop(self, flow: Flow[J]) -> int:
        """Take the rest of a flow out; return how many jobs that were."""
        waiting = flow.waiting
        # It stays in the heap until its turn: finding it there would cost more.
        flow.dropped = True
        return waiting
