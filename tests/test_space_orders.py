"""Whatever happens to the upstreams of a space, in any order: never another model's vector (P6)."""

import asyncio

from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, UpstreamConnectError
from gateway.resilience.circuit import Circuit
from gateway.spaces.reference import TENANT
from tests import several
from tests.backend import true
from tests.cache.shelf import Shelf
from tests.several import MODEL, Clock, embed, known, member, purged, space, upstreams

NAMES = ("a", "b", "c")
EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(["abc", "ba", "c"])),
    st.tuples(st.just("away"), st.sampled_from(NAMES)),
    st.tuples(st.just("back"), st.sampled_from(NAMES)),
    st.tuples(st.just("replaced"), st.sampled_from(NAMES)),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 6.0, 61.0])),
    st.tuples(st.just("wait"), st.just(6.0)),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("look"), st.none()),
    st.tuples(st.just("purge"), st.none()),
)


class World:
    """Three servers, what stands there, and a gateway that knows only what it is told."""

    def __init__(self, shelf):
        self.clock = Clock()
        self.shelf = shelf
        self.models = dict.fromkeys(NAMES, MODEL)
        """What stands at each; None: nobody."""
        self.served = []

    async def start(self):
        """Start a gateway, which knows the store and nothing else."""
        self.members = {name: member(name) for name in NAMES}
        for name, one in self.members.items():
            one.backend.circuit = Circuit(self.clock)
            one.backend.answer = lambda texts, name=name: self.answer(name, texts)
        self.cache = several.cache([self.shelf])
        await self.cache.meet()
        self.space = space(*self.members.values(), cache=self.cache, clock=self.clock)

    def answer(self, name, texts):
        model = self.models[name]
        circuit = self.members[name].backend.circuit
        circuit.begun()
        if model is None:
            circuit.failed("connect")
            raise UpstreamConnectError("nobody is there")
        circuit.succeeded()
        return true(model, texts)

    async def happen(self, what, which):
        match what:
            case "ask":
                await self.ask(which)
            case "away":
                await self.away(which)
            case "back":
                self.models[which] = MODEL
            case "replaced":
                await self.away(which)
                self.models[which] = "another"
            case "wait":
                self.clock.now += which
            case "restart":
                await self.space.aclose()
                await self.start()
            case "look":
                self.space.look()
            case "purge" if self.is_well("a"):
                await self.purge()
        for _ in range(30):
            await asyncio.sleep(0)

    async def ask(self, names):
        backend = upstreams([self.members[name] for name in names], self.space)
        text = f"text {len(self.served)}"
        try:
            raw = await embed(backend, text)
        except GatewayError:
            self.served.append(None)
            return
        self.served.append(names)
        assert known(raw.rows[0]) == known(true(MODEL, [text]).rows[0])

    async def away(self, name):
        """Let a server be gone, and the gateway notice: only then may another stand there."""
        self.models[name] = None
        for _ in range(20):
            self.members[name].backend.circuit.failed("connect")

    async def purge(self):
        for scope in self.cache.scopes:
            if scope.fact.tenant == TENANT:
                scope.fact = purged(scope.fact)
                scope.move(self.cache.scopes.secret)
        await self.ask("a")

    def is_well(self, name):
        return self.models[name] == MODEL and self.members[name].backend.circuit.state == "closed"


@settings(max_examples=150)
@given(happenings=st.lists(EVENTS, min_size=8, max_size=30))
def test_a_vector_is_the_spaces_whatever_happens(happenings):
    """Servers go, come back as they were or as another; gateways restart; references are purged.

    The first-named server makes the first reference, and whoever stands there after a purge makes
    the next: so it is the right one that makes it.
    """

    async def scene():
        world = World(Shelf())
        await world.start()
        await world.ask("abc")
        for what, which in happenings:
            await world.happen(what, which)
        await world.space.aclose()
        return world.served

    served = asyncio.run(asyncio.wait_for(scene(), 30))
    event(f"{sum(each is not None for each in served)} of {len(served)} requests answered")
