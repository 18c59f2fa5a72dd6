"""A new generation for all tenants of a model, wanted by several processes at the same time."""

import asyncio

import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.facts import PREFIX, ScopeFact, read_fact, read_facts, write_fact
from gateway.cache.generations import begin_generation
from gateway.cache.keys import scope_id
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import OWN, Scopes
from gateway.cache.tiered import TieredCache
from tests.cache.scoping import SECRET
from tests.cache.shelf import Shelf

TENANTS = (OWN, "red", "blue")


class Process:
    """One process over a store, which uses some of the tenants."""

    def __init__(self, *shelves):
        self.cache = TieredCache(
            MemoryStore(2**16), shelves, Scopes(SECRET), log=structlog.get_logger()
        )
        self.used = {}

    def use(self, tenant):
        """Have a tenant's scope in use, holding something."""
        scope = self.used[tenant] = self.cache.scopes.of(tenant, "identity", "m")
        scope.used = True
        return scope

    @property
    def place(self):
        """Where the gateway's own entries are."""
        return self.use(OWN).place

    def generations(self):
        """Return the generation of each tenant in use."""
        return {tenant: scope.fact.generation for tenant, scope in self.used.items()}


def said(shelf):
    """Return what the store says of each tenant."""
    return {fact.tenant: fact for _, fact in read_facts(shelf.said)}


def purge(shelf, tenant):
    """Raise a tenant's generation in the store, as `gateway cache purge` does."""
    for name, value in list(shelf.said.items()):
        fact = read_fact(value) if name.startswith(PREFIX) else None
        if fact is not None and fact.tenant == tenant:
            shelf.said[name] = write_fact(fact.at_least(fact.generation + 1))


steps = st.one_of(
    st.tuples(st.just("use"), st.integers(0, 2), st.sampled_from(TENANTS)),
    st.tuples(st.just("meet"), st.integers(0, 2), st.none()),
    st.tuples(st.just("begin"), st.integers(0, 2), st.none()),
    st.tuples(st.just("together"), st.none(), st.none()),
    st.tuples(st.just("purge"), st.none(), st.sampled_from(TENANTS)),
)


@given(st.lists(steps, max_size=20))
def test_all_leave_what_they_had_and_agree(story):
    """Whatever happens in whatever order: tenants agree, never go back, and none stays behind."""

    async def tell():
        shelf = Shelf()
        processes = [Process(shelf) for _ in range(3)]
        for process in processes:
            await process.cache.meet()
        for what, who, tenant in story:
            if what == "use":
                processes[who].use(tenant)
            elif what == "meet":
                await processes[who].cache.meet()
            elif what == "purge":
                purge(shelf, tenant)
            else:
                await begin(shelf, processes if what == "together" else [processes[who]])
        for process in 3 * processes:
            await process.cache.meet()
        for process in processes:
            for tenant, generation in process.generations().items():
                assert generation == said(shelf)[tenant].generation
            assert process.use("late").fact.generation >= least_of(shelf)
            assert min(process.generations().values()) >= least_of(shelf)

    asyncio.run(tell())


async def begin(shelf, processes):
    """Have processes begin a generation at the same time, and one of them, or none, do so."""
    before, least = said(shelf), least_of(shelf)
    begun = await asyncio.gather(*(begin_generation(p.cache, p.place) for p in processes))
    assert begun.count(True) <= 1
    if any(begun):
        assert least_of(shelf) > max([fact.generation for fact in before.values()], default=0)
    else:
        assert least_of(shelf) == least


def least_of(shelf):
    """Return the generation that every tenant has at least, as the store says."""
    return max([fact.least for fact in said(shelf).values()], default=0)


def test_in_memory_alone_it_begins_at_once():
    """There is nobody to agree with; who found it out in an earlier generation changes nothing."""

    async def tell():
        process = Process()
        scope, place = process.use("red"), process.place
        assert await begin_generation(process.cache, place)
        assert (scope.fact.generation, process.place.scope.fact.least) == (1, 1)
        assert not await begin_generation(process.cache, place)
        assert scope.fact.generation == 1

    asyncio.run(tell())


def test_what_others_have_news_of_meanwhile_is_no_hindrance():
    """The fact has changed between reading and writing, though not its generation."""

    async def tell():
        shelf = Shelf()
        one, other = Process(shelf), Process(shelf)
        for process in (one, other):
            process.place.scope.widen(8)
            await process.cache.meet()
        swap, tries = shelf.swap, []

        async def late(name, old, new):
            if not tries:
                purge_before(shelf, name)
            tries.append(name)
            return await swap(name, old, new)

        shelf.swap = late
        assert await begin_generation(one.cache, one.place)
        assert len(tries) == 2
        assert said(shelf)[OWN].before == 1.0

    asyncio.run(tell())


def purge_before(shelf, name):
    """Purge, in the store, what was made before the first second of Unix time."""
    tenant, model = OWN, "m"
    fact = read_fact(shelf.said[name])
    shelf.said[name] = write_fact(fact.joined(type(fact)(tenant, model, before=1.0)))


def test_who_asks_nobody_any_more_is_lifted_too():
    """What a store says of a tenant is what commands go by."""

    async def tell():
        shelf = Shelf()
        gone, here = Process(shelf), Process(shelf)
        gone.use("red")
        for process in (gone, here):
            await process.cache.meet()
        assert await begin_generation(here.cache, here.place)
        await here.cache.meet()
        assert said(shelf)["red"].generation == 1

    asyncio.run(tell())


def test_it_is_known_however_many_tenants_there_are():
    """Of tenants only so many are remembered; of models what holds for all of theirs."""
    scopes = Scopes(SECRET)
    many = (scope_id(SECRET, str(number), "other") for number in range(5000))
    scopes.learn({PREFIX + id_: write_fact(ScopeFact(id_, "n")) for id_ in many})
    own = scopes.of(OWN, "identity", "m")
    scopes.learn({PREFIX + own.id: write_fact(ScopeFact(OWN, "m", least=3))})
    assert scopes.of("late", "identity", "m").fact.generation == 3


def test_a_store_that_fails_is_left_alone():
    """Nothing begins, and the cache knows of the failure as of any other."""

    async def tell():
        shelf = Shelf()
        process = Process(shelf)
        await process.cache.meet()
        shelf.fail("full", "swap")
        assert not await begin_generation(process.cache, process.place)
        assert not process.cache.tiers[-1].writable
        assert process.place.scope.fact.least == 0

    asyncio.run(tell())
