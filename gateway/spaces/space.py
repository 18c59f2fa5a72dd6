"""Which upstreams make vectors of one space, found out by asking all for the same few texts.

What the first-named upstream says of them is the reference. An upstream is asked for vectors only
while it is known to agree: promise P6. What is known ends when the reference is purged, and when
the upstream has been away, as another may stand there now.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import structlog
from msgspec.structs import replace

from gateway.backends.member import Member, Pair
from gateway.cache.tiered import TieredCache
from gateway.errors import (
    GatewayError,
    UnavailableError,
    UpstreamTimeoutError,
    VectorsRefusedError,
    retry_headers,
)
from gateway.resilience.circuit import Circuit
from gateway.spaces.reference import TEXTS, Reference
from gateway.spaces.standing import Standing, Times
from gateway.types import RawEmbeddings, UpstreamInfo
from gateway.vectors import InvalidVectorError, unit

PATIENCE = 60.0
"""Seconds that a probe may take; a local model may have to be loaded first."""
_LOOKS_EVERY = 1.0

OnRefused = Callable[[VectorsRefusedError], None]


class Space:
    """One space: who is to make its vectors, and who of them is known to."""

    def __init__(
        self,
        name: str,
        members: Sequence[tuple[Member, float]],
        reference: Reference,
        *,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float],
        on_refused: OnRefused = lambda _: None,
    ) -> None:
        """`members` have the least cosine that will do; the first of them gives the reference.

        `on_refused` is told of an answer that `check` refuses.
        """
        self.name = name
        self._members = {member.pair: member for member, _ in members}
        self._first = next(iter(self._members))
        self.standings = {member.pair: Standing(alike) for member, alike in members}
        self._reference = reference
        self._log = log.bind(space=name)
        self._clock = clock
        self._on_refused = on_refused
        self._probes: dict[Pair, asyncio.Task[None]] = {}

    # What the backend of a model asks

    @property
    def width(self) -> int | None:
        """See Members.width."""
        return self._reference.width

    async def vouched(self, members: Sequence[Member], deadline: float) -> Sequence[Member]:
        """See Members.vouched. Those of which nothing is known are probed meanwhile."""
        now = asyncio.get_running_loop().time
        while True:
            good = [member for member in members if self._holds(member.pair)]
            if len(good) < len(members):
                self._begin_due()
            if good:
                return good
            probes = [self._probes[p] for p in (m.pair for m in members) if p in self._probes]
            if not probes:
                raise self._nobody(members)
            patience = max(deadline - now(), 0.0)
            done, _ = await asyncio.wait(
                probes, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise UpstreamTimeoutError(
                    f"No upstream could be compared with the space '{self.name}' in time."
                )

    def check(self, member: Member, raw: RawEmbeddings) -> None:
        """See Members.check."""
        pair, width, known = member.pair, len(raw.rows[0]), self.width
        standing = self.standings[pair]
        if known is not None and width != known:
            self._tell(pair, is_news=standing.has_width(width, known, self._clock()))
        if standing.state == "out":
            fault: Literal["width", "space"] = "width" if width != known else "space"
            refused = VectorsRefusedError(member.backend.name, str(standing.reason), fault)
            self._on_refused(refused)
            raise refused

    def info(self, member: Member) -> UpstreamInfo:
        """See Members.info."""
        said, standing = member.info(), self.standings[member.pair]
        told = replace(said, similarity=standing.similarity)
        if standing.state == "out":
            return replace(told, state="out", reason=standing.reason)
        if said.state != "ready" or self._holds(member.pair):
            return told
        return replace(told, state="unknown", reason=standing.reason)

    def _holds(self, pair: Pair) -> bool:
        times = _times(self._members[pair].backend.circuit)
        return self.standings[pair].holds(self._reference.place, times)

    def _nobody(self, members: Sequence[Member]) -> GatewayError:
        now = self._clock()
        waits = [
            max(self.standings[m.pair].due - now, m.backend.circuit.wait(stand_in=False))
            for m in members
        ]
        told = (f"{i.name}: {i.reason or i.state}" for i in map(self.info, members))
        return UnavailableError(
            f"No upstream is known to make vectors of the space '{self.name}' now "
            f"({'; '.join(told)}).",
            code="upstream_unavailable",
            headers=retry_headers(min(waits)),
        )

    # What goes on beside the requests

    def look(self) -> None:
        """Begin the probes that are due, and notice a reference that others stored first."""
        if self._reference.replaced():
            for standing in self.standings.values():
                standing.forget()
        self._begin_due()

    def adopt(self, before: "Space") -> None:
        """Take over what is known of upstreams that are the same ones."""
        self._reference.adopt(before._reference)  # noqa: SLF001 - of its own class
        for pair, member in self._members.items():
            other, known = before._members.get(pair), before.standings.get(pair)  # noqa: SLF001
            if known and other and other.backend is member.backend:
                known.alike = self.standings[pair].alike
                self.standings[pair] = known

    async def aclose(self) -> None:
        """Call the probes off."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def _begin_due(self) -> None:
        others = any(map(self._holds, self._members))
        for pair in self._members:
            if not self._holds(pair):
                self._begin(pair, stand_in=others)

    def _begin(self, pair: Pair, *, stand_in: bool) -> "asyncio.Task[None] | None":
        """Return the probe that is under way, or begin it where one is due."""
        if pair in self._probes:
            return self._probes[pair]
        circuit = self._members[pair].backend.circuit
        if self._clock() < self.standings[pair].due or not circuit.permits(stand_in=stand_in):
            return None
        probe = asyncio.get_running_loop().create_task(self._probe(pair, stand_in=stand_in))
        self._probes[pair] = probe
        probe.add_done_callback(partial(self._ended, pair))
        return probe

    def _ended(self, pair: Pair, probe: "asyncio.Task[None]") -> None:
        del self._probes[pair]
        if not probe.cancelled() and (error := probe.exception()) is not None:
            # Else who waits would begin it again at once.
            self.standings[pair].failed("unforeseen error", self._clock())
            self._log.error("unforeseen error in a probe", kind=type(error).__name__)

    async def _probe(self, pair: Pair, *, stand_in: bool) -> None:
        """Find out about one upstream; it is known of then, or due again later."""
        standing, backend = self.standings[pair], self._members[pair].backend
        place, times = self._reference.place, _times(backend.circuit)
        try:
            known = await self._reference.find(place)
            if known is None and pair != self._first:
                first = self._begin(self._first, stand_in=False)
                await asyncio.gather(*([first] if first else []), return_exceptions=True)
                known = await self._reference.find(place)
                if known is None:
                    waits = f"it is compared with upstream '{self._first[0]}', which is not there"
                    self._tell(pair, is_news=standing.failed(waits, self._clock()))
                    return
            raw = await self._ask(pair, stand_in=stand_in)
            if known is None:
                known = await self._reference.keep(place, raw)
            vectors = [unit(row).tobytes() for row in raw.rows]
        except (GatewayError, InvalidVectorError) as error:
            code = error.code if isinstance(error, GatewayError) else "upstream_invalid_response"
            is_news = standing.failed(f"it could not be compared: {code}", self._clock())
        else:
            standing.place, standing.times = place, times
            is_news = standing.compare(vectors, known.vectors, self.name, self._clock())
        self._tell(pair, is_news=is_news)

    async def _ask(self, pair: Pair, *, stand_in: bool) -> RawEmbeddings:
        """Return what the upstream makes of the texts, in as many calls as it wants."""
        backend, model = self._members[pair].backend, pair[1] or self.name
        deadline = asyncio.get_running_loop().time() + PATIENCE
        parts = [
            await backend.embed(
                model,
                TEXTS[start : start + backend.max_batch],
                fields={},
                truncate=False,
                deadline=deadline,
                stand_in=stand_in,
            )
            for start in range(0, len(TEXTS), backend.max_batch)
        ]
        rows = [row for part in parts for row in part.rows]
        return RawEmbeddings(rows, [count for part in parts for count in part.tokens], True)

    def _tell(self, pair: Pair, *, is_news: bool) -> None:
        if not is_news:
            return
        standing = self.standings[pair]
        log = self._log.bind(upstream=pair[0], model=pair[1])
        if standing.state == "agrees":
            log.info("upstream agrees with its space", similarity=standing.similarity)
        else:
            state, reason = standing.state, standing.reason
            log.warning("upstream is left out of its space", state=state, reason=reason)


class Spaces:
    """All spaces of a config that have several upstreams."""

    def __init__(
        self,
        cache: TieredCache,
        *,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float],
        on_refused: OnRefused = lambda _: None,
    ) -> None:
        """`on_refused` is told of answers that are none of their space."""
        self._cache = cache
        self._log = log
        self._clock = clock
        self._on_refused = on_refused
        self._spaces: dict[str, Space] = {}

    def add(self, name: str, model: str, members: Sequence[tuple[Member, float]]) -> Space:
        """Return a new space; see Space and Reference."""
        reference = Reference(name, model, self._cache)
        space = Space(
            name,
            members,
            reference,
            log=self._log,
            clock=self._clock,
            on_refused=self._on_refused,
        )
        self._spaces[name] = space
        return space

    def __iter__(self) -> Iterator[Space]:
        return iter(self._spaces.values())

    def adopt(self, before: "Spaces") -> None:
        """Take over what another config's spaces know of the same upstreams."""
        for name, space in self._spaces.items():
            if name in before._spaces:  # noqa: SLF001 - of its own class
                space.adopt(before._spaces[name])  # noqa: SLF001

    async def watch(self) -> None:
        """Probe at once, and then whoever is due, until cancelled."""
        while self._spaces:
            for space in self:
                space.look()
            await asyncio.sleep(_LOOKS_EVERY)

    async def aclose(self) -> None:
        """Call all probes off."""
        await asyncio.gather(*(space.aclose() for space in self))


def _times(circuit: Circuit) -> Times:
    return circuit.opened, circuit.state == "open"
