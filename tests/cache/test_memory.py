"""The memory tier: what is kept, oldest out first, and the bound on bytes is a bound."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.cache.entry import Entry
from gateway.cache.memory import MemoryStore
from gateway.vectors import unit


def entry(width=8, seed=0):
    row = np.random.default_rng(seed).standard_normal(width)
    return Entry(unit(row).tobytes(), tokens=1, created=0.0)


def key(number):
    return number.to_bytes(32)


def held(store, number):
    """Return what is kept under a key, or None."""
    (found,) = store.get([key(number)])
    return found


def test_each_key_has_its_own_entry_or_none():
    """In the order of the keys, also where one stands there twice."""
    store, first, second = MemoryStore(10_000), entry(seed=1), entry(seed=2)
    store.put(key(1), first)
    store.put(key(2), second)
    assert store.get([key(n) for n in (2, 3, 1, 2)]) == [second, None, first, second]
    assert store.get([]) == []
    assert (key(1) in store, key(3) in store) == (True, False)


def test_the_vector_put_last_takes_the_place_of_the_one_before():
    """A store's winner replaces what was kept, and is counted in its stead."""
    store, first, second = MemoryStore(10_000), entry(seed=1), entry(width=64, seed=2)
    store.put(key(1), first)
    store.put(key(1), second)
    assert held(store, 1) is second
    assert (len(store), store.bytes) == (1, second.size)


def test_the_least_recently_used_goes_first():
    """A hit keeps an entry; the one that nobody asked for makes room, and is counted."""
    size = entry().size
    store = MemoryStore(2 * size)
    for number in (1, 2):
        store.put(key(number), entry(seed=number))
    store.get([key(1)])
    store.put(key(3), entry(seed=3))
    assert [held(store, n) is not None for n in (1, 2, 3)] == [True, False, True]
    assert store.evicted == 1


def test_of_the_keys_asked_together_the_first_goes_first():
    """One question for many keys uses them in its order."""
    store = MemoryStore(3 * entry().size)
    for number in (1, 2, 3):
        store.put(key(number), entry(seed=number))
    store.get([key(2), key(9), key(1)])
    kept = []
    for number in (4, 5):
        store.put(key(number), entry(seed=number))
        kept.append({n for n in (1, 2, 3) if key(n) in store})
    assert kept == [{1, 2}, {1}]


def test_nothing_is_kept_where_there_is_no_room():
    """With no bytes, or an entry larger than all of them, nothing is kept or pushed out."""
    for room in (0, entry().size - 1):
        store = MemoryStore(room)
        store.put(key(1), entry())
        assert held(store, 1) is None
        assert (0, 0, 0) == (len(store), store.bytes, store.evicted)


def test_one_that_is_too_large_does_not_leave_the_old_one_behind():
    """It was to take its place: what a store has replaced must not be served any more."""
    store = MemoryStore(entry().size)
    store.put(key(1), entry())
    store.put(key(1), entry(width=64))
    assert held(store, 1) is None
    assert (0, 0) == (len(store), store.bytes)


def test_an_entry_that_grows_is_counted_again():
    """A rendered form counts, and may push the oldest out."""
    store = MemoryStore(2 * entry().size)
    first, second = entry(seed=1), entry(seed=2)
    store.put(key(1), first)
    store.put(key(2), second)
    assert store.bytes == first.size + second.size
    second.render(base64=True)
    store.resize(key(2), second)
    assert held(store, 1) is None
    assert held(store, 2) is second
    assert store.bytes == second.size


def test_only_the_kept_entry_is_counted_again():
    """A stranger under the same key, or one that is gone, changes nothing."""
    store, kept, stranger = MemoryStore(100_000), entry(seed=1), entry(seed=2)
    store.put(key(1), kept)
    before = store.bytes
    stranger.render(base64=False)
    store.resize(key(1), stranger)
    store.resize(key(2), stranger)
    assert (before, 1) == (store.bytes, len(store))
    assert held(store, 1) is kept


def test_an_entry_larger_than_the_store_after_growing_leaves_it():
    """What no longer fits is let go rather than kept uncounted."""
    made = entry()
    store = MemoryStore(made.size)
    store.put(key(1), made)
    made.render(base64=False)
    store.resize(key(1), made)
    assert (0, 0) == (len(store), store.bytes)


@pytest.mark.parametrize("grown", [False, True])
def test_what_is_dropped_or_cleared_leaves_no_bytes(grown):
    """Also of an entry whose new form was not counted yet; nothing of it is an eviction."""
    store, first, second = MemoryStore(100_000), entry(seed=1), entry(seed=2)
    store.put(key(1), first)
    store.put(key(2), second)
    if grown:
        first.render(base64=True)
    for _ in range(2):
        store.drop(key(1))
        assert (1, second.size) == (len(store), store.bytes)
    store.clear()
    assert (0, 0, 0) == (len(store), store.bytes, store.evicted)


def test_what_is_kept_can_be_looked_through_while_it_changes():
    """A purge drops entries as it meets them."""
    store = MemoryStore(100_000)
    for number in range(5):
        store.put(key(number), entry(seed=number))
    seen = []
    for name, found in store.items():
        assert found is held(store, int.from_bytes(name))
        seen.append(name)
        store.drop(name)
        store.put(key(10 + len(seen)), entry())
    assert seen == [key(number) for number in range(5)]


def test_bytes_counted_are_bytes_taken():
    """The bound is in real memory: the count is within a fifth of what Python allocates."""
    store = MemoryStore(2**30)
    rows = [entry(width=384, seed=n).vector for n in range(500)]
    gc.collect()
    tracemalloc.start()
    for number, row in enumerate(rows):
        made = Entry(bytes(bytearray(row)), tokens=number + 1000, created=number + 0.5)
        made.render(base64=bool(number % 2))
        store.put(bytes(bytearray(key(number))), made)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.8 < store.bytes / taken < 1.2


class Bounded(RuleBasedStateMachine):
    """Any sequence of calls: never over the bound, never a count that is not the sum."""

    def __init__(self):
        super().__init__()
        self.room = 4 * entry().size
        self.store = MemoryStore(self.room)
        self.last = {}

    @rule(number=st.integers(0, 9), width=st.sampled_from([8, 64, 512]))
    def put(self, number, width):
        made = self.last[number] = entry(width=width, seed=number)
        self.store.put(key(number), made)
        assert held(self.store, number) is (made if made.size <= self.room else None)

    @rule(numbers=st.lists(st.integers(0, 9), max_size=4))
    def get(self, numbers):
        for number, found in zip(
            numbers, self.store.get([key(number) for number in numbers]), strict=True
        ):
            assert found is None or found is self.last[number]

    @rule(number=st.integers(0, 9))
    def drop(self, number):
        self.store.drop(key(number))
        assert held(self.store, number) is None

    @rule(number=st.integers(0, 9), base64=st.booleans())
    def render(self, number, base64):
        kept = held(self.store, number)
        if kept is not None:
            kept.render(base64=base64)
            self.store.resize(key(number), kept)

    @invariant()
    def within_the_bound(self):
        present = dict(self.store.items())
        assert len(self.store) == len(present)
        assert self.store.bytes == sum(entry.size for entry in present.values())
        assert self.store.bytes <= self.room


Bounded.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
test_the_bound_holds_in_any_order_of_calls = Bounded.TestCase
