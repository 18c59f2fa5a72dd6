"""The memory tier: first stored wins, oldest out first, and the bound on bytes is a bound."""

import gc
import tracemalloc

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.cache.entry import Entry
from gateway.cache.memory import MemoryStore
from gateway.vectors import unit


def entry(width=8, seed=0):
    row = np.random.default_rng(seed).standard_normal(width)
    return Entry(unit(row).tobytes(), tokens=1)


def key(number):
    return number.to_bytes(32)


def test_the_first_vector_stored_wins():
    """Whoever comes second is given what is kept."""
    store, first, second = MemoryStore(10_000), entry(seed=1), entry(seed=2)
    assert store.add(key(1), first) is first
    assert store.add(key(1), second) is first
    assert store.get(key(1)) is first
    assert len(store) == 1


def test_the_least_recently_used_goes_first():
    """A hit keeps an entry; the one that nobody asked for makes room."""
    size = entry().size
    store = MemoryStore(2 * size)
    for number in (1, 2):
        store.add(key(number), entry(seed=number))
    store.get(key(1))
    store.add(key(3), entry(seed=3))
    assert [store.get(key(n)) is not None for n in (1, 2, 3)] == [True, False, True]


def test_nothing_is_kept_where_there_is_no_room():
    """With no bytes, or an entry larger than all of them, the entry is returned and not kept."""
    for room in (0, entry().size - 1):
        store, made = MemoryStore(room), entry()
        assert store.add(key(1), made) is made
        assert store.get(key(1)) is None
        assert (0, 0) == (len(store), store.bytes)


def test_an_entry_that_grows_is_counted_again():
    """A rendered form counts, and may push the oldest out."""
    store = MemoryStore(2 * entry().size)
    first, second = store.add(key(1), entry(seed=1)), store.add(key(2), entry(seed=2))
    assert store.bytes == first.size + second.size
    second.render(base64=True)
    store.resize(key(2), second)
    assert store.get(key(1)) is None
    assert store.get(key(2)) is second
    assert store.bytes == second.size


def test_only_the_kept_entry_is_counted_again():
    """A stranger under the same key, or one that is gone, changes nothing."""
    store, kept, stranger = MemoryStore(100_000), entry(seed=1), entry(seed=2)
    store.add(key(1), kept)
    before = store.bytes
    stranger.render(base64=False)
    store.resize(key(1), stranger)
    store.resize(key(2), stranger)
    assert (before, 1) == (store.bytes, len(store))
    assert store.get(key(1)) is kept


def test_an_entry_larger_than_the_store_after_growing_leaves_it():
    """What no longer fits is let go rather than kept uncounted."""
    made = entry()
    store = MemoryStore(made.size)
    store.add(key(1), made)
    made.render(base64=False)
    store.resize(key(1), made)
    assert (0, 0) == (len(store), store.bytes)


def test_bytes_counted_are_bytes_taken():
    """The bound is in real memory: the count is within a fifth of what Python allocates."""
    store = MemoryStore(2**30)
    rows = [entry(width=384, seed=n).vector for n in range(500)]
    gc.collect()
    tracemalloc.start()
    for number, row in enumerate(rows):
        made = Entry(bytes(bytearray(row)), tokens=number + 1000)
        made.render(base64=bool(number % 2))
        store.add(bytes(bytearray(key(number))), made)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.8 < store.bytes / taken < 1.2


class Bounded(RuleBasedStateMachine):
    """Any sequence of calls: never over the bound, never a count that is not the sum."""

    def __init__(self):
        super().__init__()
        self.room = 4 * entry().size
        self.store = MemoryStore(self.room)
        self.first = {}

    @rule(number=st.integers(0, 9), width=st.sampled_from([8, 64, 512]))
    def add(self, number, width):
        made = entry(width=width, seed=number)
        before = self.store.get(key(number))
        kept = self.store.add(key(number), made)
        assert kept is (before or made)

    @rule(number=st.integers(0, 9), base64=st.booleans())
    def render(self, number, base64):
        kept = self.store.get(key(number))
        if kept is not None:
            kept.render(base64=base64)
            self.store.resize(key(number), kept)

    @invariant()
    def within_the_bound(self):
        present = [self.store.get(key(number)) for number in range(10)]
        assert self.store.bytes == sum(e.size for e in present if e is not None)
        assert self.store.bytes <= self.room


Bounded.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
test_the_bound_holds_in_any_order_of_calls = Bounded.TestCase
