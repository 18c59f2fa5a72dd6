"""What every store must keep, as tests: a store's own file inherits them.

class TestSqlite(StoreContract):
    @asynccontextmanager
    async def open_store(self, *, ttl=None): ...
    @asynccontextmanager
    async def reopen(self, *, ttl=None): ...
"""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, aclosing

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.store import Inspectable
from tests.cache.values import NAMESPACE, OTHER, key, record

VALUES = [b"", b"\0", b"a", b"\xff\0,\x80", b"x" * 5000]
"""Few, so that equal ones meet, and such as a store could stumble over."""


async def scanned(store: Inspectable, namespace: str = NAMESPACE) -> dict[bytes, bytes]:
    """Return everything that a scan brings."""
    found: dict[bytes, bytes] = {}
    async with aclosing(store.scan(namespace)) as batches:
        async for batch in batches:
            found.update(batch)
    return found


NAMESPACES = st.sampled_from([NAMESPACE, OTHER])
PAIRS = st.dictionaries(st.integers(0, 9).map(key), st.sampled_from(VALUES), max_size=10)
CALLS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(
            st.tuples(st.just("add"), NAMESPACES, PAIRS),
            st.tuples(st.just("discard"), NAMESPACES, PAIRS),
            st.tuples(st.just("purge"), NAMESPACES, st.none()),
            st.tuples(st.just("settle"), st.sampled_from("ab"), st.sampled_from(VALUES)),
            st.tuples(
                st.just("swap"),
                st.sampled_from("ab"),
                st.sampled_from(VALUES),
                st.sampled_from(VALUES),
            ),
        ),
    ),
    max_size=12,
)
"""Which of two stores is asked for what."""


class Model:
    """What a store is to do, with dictionaries."""

    def __init__(self):
        self.values = {NAMESPACE: {}, OTHER: {}}
        self.facts = {}

    def add(self, namespace, values):
        held = self.values[namespace]
        first = {each: held[each] for each in values if each in held}
        held.update({each: value for each, value in values.items() if each not in held})
        return first

    def discard(self, namespace, values):
        held = self.values[namespace]
        same = [each for each, value in values.items() if held.get(each) == value]
        for each in same:
            del held[each]
        return len(same)

    def purge(self, namespace, before):
        assert before is None
        held = self.values[namespace]
        count = len(held)
        held.clear()
        return count

    def settle(self, name, value):
        return self.facts.setdefault(name, value)

    def swap(self, name, old, new):
        same = self.facts.get(name) == old
        if same:
            self.facts[name] = new
        return same


class StoreContract:
    """Inherit and say how a store is opened; pytest collects the tests with the subclass."""

    def open_store(self, *, ttl: float | None = None) -> AbstractAsyncContextManager[Inspectable]:
        """Open a store at an empty place, a new one at every call; closed when left."""
        raise NotImplementedError

    def reopen(self, *, ttl: float | None = None) -> AbstractAsyncContextManager[Inspectable]:
        """Open one more store on the place that `open_store` last made."""
        raise NotImplementedError

    def run(self, check, *, ttl=None):
        """Run a check on one store, on an empty place."""

        async def opened():
            async with self.open_store(ttl=ttl) as store:
                await check(store)

        asyncio.run(opened())

    def run_on_two(self, check):
        """Run a check on two stores that share a place."""

        async def opened():
            async with self.open_store() as store, self.reopen() as other:
                await check(store, other)

        asyncio.run(opened())

    def test_the_first_value_stays(self):
        """Who comes second is told what is there; so is everybody who asks."""

        async def check(store):
            assert await store.add(NAMESPACE, {key(1): b"first"}) == {}
            assert await store.add(NAMESPACE, {key(1): b"second"}) == {key(1): b"first"}
            assert await store.add(NAMESPACE, {key(1): b"first"}) == {key(1): b"first"}
            assert await store.get(NAMESPACE, [key(1), key(2)]) == {key(1): b"first"}

        self.run(check)

    def test_a_batch_of_old_and_new(self):
        """What was there is answered, what was not is kept, each under its own key."""

        async def check(store):
            old = {key(n): b"old %d" % n for n in range(0, 300, 3)}
            new = {key(n): b"new %d" % n for n in range(300)}
            assert await store.add(NAMESPACE, old) == {}
            assert await store.add(NAMESPACE, new) == old
            assert await store.get(NAMESPACE, list(new)) == new | old

        self.run(check)

    def test_nothing_is_asked_for_nothing(self):
        """Empty batches are answered, and change nothing."""

        async def check(store):
            assert await store.get(NAMESPACE, []) == {}
            assert await store.add(NAMESPACE, {}) == {}
            assert await store.discard(NAMESPACE, {}) == 0
            assert await store.purge(NAMESPACE, None) == 0
            assert await store.namespaces() == {}
            assert await scanned(store) == {}

        self.run(check)

    def test_values_come_back_as_they_were(self):
        """Any bytes of any length, in one batch that is larger than a request can be."""

        async def check(store):
            every = bytes(range(256))
            values = {key(n): every[: n % 257] * (n % 7) for n in range(3000)}
            values |= {key(3000 + n): value for n, value in enumerate(VALUES)}
            values[key(4000)] = every * 4000
            assert await store.add(NAMESPACE, values) == {}
            assert await store.get(NAMESPACE, [*values, key(9999)]) == values

        self.run(check)

    def test_the_order_of_keys_and_their_doubles_do_not_matter(self):
        """A key that is asked for twice is answered once."""

        async def check(store):
            values = {key(n): b"%d" % n for n in range(300)}
            await store.add(NAMESPACE, values)
            keys = [*reversed(values), key(500), *values]
            assert await store.get(NAMESPACE, keys) == values

        self.run(check)

    def test_namespaces_are_apart(self):
        """The same key in two namespaces is two entries, for every verb."""

        async def check(store):
            await store.add(NAMESPACE, {key(1): b"one"})
            assert await store.get(OTHER, [key(1)]) == {}
            assert await store.add(OTHER, {key(1): b"other"}) == {}
            assert await store.discard(OTHER, {key(1): b"one"}) == 0
            assert await scanned(store) == {key(1): b"one"}
            assert await store.purge(NAMESPACE, None) == 1
            assert await store.get(OTHER, [key(1)]) == {key(1): b"other"}

        self.run(check)

    def test_only_exactly_this_is_discarded(self):
        """A value that was replaced meanwhile stays; a key that is gone can be set again."""

        async def check(store):
            await store.add(NAMESPACE, {key(n): b"%d" % n for n in range(3)})
            wrong = {key(0): b"0", key(1): b"1 ", key(2): b"", key(3): b"3"}
            assert await store.discard(NAMESPACE, wrong) == 1
            assert await store.get(NAMESPACE, list(wrong)) == {key(1): b"1", key(2): b"2"}
            assert await store.add(NAMESPACE, {key(0): b"again"}) == {}

        self.run(check)

    def test_all_who_add_at_once_agree(self):
        """Of two stores' callers one wins each key, and all of them learn which."""

        async def check(store, other):
            async def add(number):
                keys = [key((each * (2 * number + 1)) % 64) for each in range(64)]
                values = dict.fromkeys(keys, b"%d" % number)
                first = await (store, other)[number % 2].add(NAMESPACE, values)
                return values | dict(first)

            views = await asyncio.gather(*(add(number) for number in range(12)))
            held = await store.get(NAMESPACE, [key(each) for each in range(64)])
            assert len(held) == 64
            assert all(view == held for view in views)

        self.run_on_two(check)

    def test_what_one_store_keeps_the_other_finds(self):
        """As soon as the first has answered."""

        async def check(store, other):
            for number in range(20):
                await store.add(NAMESPACE, {key(number): b"%d" % number})
                store, other = other, store
                assert await store.get(NAMESPACE, [key(number)]) == {key(number): b"%d" % number}

        self.run_on_two(check)

    def test_what_was_kept_outlives_the_store(self):
        """A store that is opened later has values and facts of the one before."""

        async def check():
            async with self.open_store() as store:
                epoch = (await store.facts())["epoch"]
                await store.add(NAMESPACE, {key(1): b"kept"})
                await store.settle("fact", b"settled")
            async with self.reopen() as store:
                assert await store.get(NAMESPACE, [key(1)]) == {key(1): b"kept"}
                assert await store.facts() == {"epoch": epoch, "fact": b"settled"}

        asyncio.run(check())

    def test_a_fact_is_settled_once(self):
        """All who settle it at once, in two stores, are told the same."""

        async def check(store, other):
            wishes = [b"%d" % number for number in range(20)]
            asked = [(store, other)[n % 2].settle("fact", wish) for n, wish in enumerate(wishes)]
            told = set(await asyncio.gather(*asked))
            assert len(told) == 1
            assert told < set(wishes)
            assert {(await each.facts())["fact"] for each in (store, other)} == told

        self.run_on_two(check)

    def test_a_fact_is_swapped_by_one(self):
        """Of all who would change it one does; a fact that is not there is not changed."""

        async def check(store, other):
            assert await store.swap("fact", b"", b"new") is False
            await store.settle("fact", b"old")
            asked = [(store, other)[n % 2].swap("fact", b"old", b"%d" % n) for n in range(20)]
            changed = await asyncio.gather(*asked)
            assert sum(changed) == 1
            assert (await other.facts())["fact"] == b"%d" % changed.index(True)

        self.run_on_two(check)

    def test_a_place_is_known_by_its_epoch(self):
        """The same to all who use it, another at another place, and never asked for by a caller."""

        async def check():
            async with self.open_store() as store, self.reopen() as other:
                first = await store.facts()
                assert await other.facts() == first
                assert len(first["epoch"]) == 16
            async with self.open_store() as store:
                assert (await store.facts())["epoch"] != first["epoch"]

        asyncio.run(check())

    def test_what_is_held_is_counted(self):
        """Exactly by namespace; the whole is at least that."""

        async def check(store):
            values = {key(n): bytes(n) for n in range(100)}
            await store.add(NAMESPACE, values)
            await store.add(NAMESPACE, values)
            await store.add(OTHER, {key(1): b"other"})
            await store.discard(NAMESPACE, {key(99): bytes(99)})
            held = await store.namespaces()
            assert {name: usage.entries for name, usage in held.items()} == {
                NAMESPACE: 99,
                OTHER: 1,
            }
            assert held[NAMESPACE].bytes >= sum(range(99))
            usage = await store.usage()
            assert usage.entries >= 100
            assert usage.bytes >= sum(range(99)) + 5
            await store.purge(OTHER, None)
            assert list(await store.namespaces()) == [NAMESPACE]

        self.run(check)

    def test_a_scan_brings_everything(self):
        """All of the namespace, nothing of another."""

        async def check(store):
            values = {key(n): b"%d" % n for n in range(600)}
            await store.add(NAMESPACE, values)
            await store.add(OTHER, {key(1): b"other"})
            assert await scanned(store) == values

        self.run(check)

    def test_a_scan_misses_nothing_that_stays(self):
        """While others come and go."""

        async def check(store, other):
            staying = {key(n): b"%d" % n for n in range(700)}
            passing = {key(1000 + n): b"%d" % n for n in range(700)}
            await store.add(NAMESPACE, staying | dict(list(passing.items())[::2]))
            found = {}
            scan = store.scan(NAMESPACE)
            async with aclosing(scan):
                async for batch in scan:
                    found.update(batch)
                    await other.discard(NAMESPACE, dict(list(passing.items())[:400]))
                    await other.add(NAMESPACE, dict(list(passing.items())[300:]))
            assert staying.items() <= found.items()
            assert found.items() <= (staying | passing).items()

        self.run_on_two(check)

    def test_a_purge_takes_what_is_older(self):
        """What was made at that time or later stays; without a time all go."""

        async def check(store):
            now = float(int(time.time()))
            values = {key(n): record(n, now - n) for n in range(700)}
            await store.add(NAMESPACE, values)
            await store.add(OTHER, values)
            assert await store.purge(NAMESPACE, now - 99) == 600
            assert await scanned(store) == {key(n): values[key(n)] for n in range(100)}
            assert await store.purge(NAMESPACE, None) == 100
            assert await scanned(store) == {}
            assert await scanned(store, OTHER) == values

        self.run(check)

    def test_what_has_expired_is_gone(self):
        """It is not answered, and what comes later takes its place; the others stay."""

        async def check(store):
            now = time.time()
            values = {key(n): record(n, now - 1000 * (n % 2)) for n in range(100)}
            young = {key(n): values[key(n)] for n in range(0, 100, 2)}
            assert await store.add(NAMESPACE, values) == {}
            assert await store.get(NAMESPACE, list(values)) == young
            assert await scanned(store) == young
            again = {key(n): record(n, now) for n in range(100)}
            assert await store.add(NAMESPACE, again) == young
            assert await store.get(NAMESPACE, list(values)) == again | young

        self.run(check, ttl=900.0)

    def test_any_calls_in_any_order(self):
        """Two stores on one place do together what a dictionary does."""

        @settings(max_examples=25)
        @given(CALLS)
        def check(calls):
            async def follow(store, other):
                model = Model()
                for which, (verb, *arguments) in calls:
                    answer = await getattr((store, other)[which], verb)(*arguments)
                    assert answer == getattr(model, verb)(*arguments)
                keys = [key(number) for number in range(10)]
                for each in (store, other):
                    facts = dict(await each.facts())
                    del facts["epoch"]
                    assert facts == model.facts
                    for namespace, values in model.values.items():
                        assert await each.get(namespace, keys) == values

            self.run_on_two(follow)

        check()
