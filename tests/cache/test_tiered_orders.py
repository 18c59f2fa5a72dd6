"""Several workers over shared stores, and any order of answers, troubles, purges and restarts."""

import asyncio
from collections import defaultdict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.shelf import Shelf
from tests.cache.worker import Clock, Worker, purge

WORKERS = 3
REASONS = ["connect", "timeout", "full", "readonly", "error"]
VERBS = ["get", "add", "discard", "facts", "settle", "swap"]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.integers(0, WORKERS - 1), st.sampled_from("abc")),
        st.tuples(st.just("answer"), st.integers(0, WORKERS - 1), st.sampled_from("abc")),
        st.tuples(st.just("meet"), st.integers(0, WORKERS - 1)),
        st.tuples(
            st.just("fail"),
            st.sampled_from(["near", "far"]),
            st.sampled_from(REASONS),
            st.lists(st.sampled_from(VERBS), max_size=2),
            st.booleans(),
        ),
        st.tuples(st.just("recover")),
        st.tuples(st.just("damage")),
        st.tuples(st.just("restart"), st.integers(0, WORKERS - 1)),
        st.tuples(st.just("purge")),
        st.tuples(st.just("run"), st.integers(1, 12)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps=steps, seed=st.integers(0, 2**16))
def test_in_whatever_order_things_happen_there_is_one_vector_to_a_text(steps, seed):
    """P2: vectors that are everybody's never differ, and when all is well again all have them."""
    asyncio.run(Story(Random(seed)).play(steps))


class Story:
    """Two workers beside one nearer store, one by itself, and what all of them said."""

    def __init__(self, order):
        self.clock = Clock()
        self.order = order
        self.shelves = {"near": Shelf("near"), "far": Shelf("far")}
        for shelf in self.shelves.values():
            shelf.pace = self.pace
        self.workers = [self.worker(number) for number in range(WORKERS)]
        self.running = {}
        self.tasks = []
        self.shared = defaultdict(set)
        """Every vector that was answered as everybody's, by generation and text."""

    async def pace(self):
        for _ in range(self.order.randrange(4)):
            await asyncio.sleep(0)

    def worker(self, number):
        stores = [self.shelves["near"]] if number < 2 else []
        return Worker(*stores, self.shelves["far"], clock=self.clock)

    async def play(self, steps):
        for worker in self.workers:
            await worker.met()
        for action, *details in steps:
            await getattr(self, action)(*details)
        await self.recover()
        await asyncio.gather(*self.running.values(), *self.tasks)
        for _ in range(2):
            for worker in self.workers:
                await worker.met()
        await self.check()

    async def check(self):
        for text in "abc":
            entries = [await worker.answer(text) for worker in self.workers]
            assert all(entry.shared for entry in entries)
            assert {entry.vector for entry in entries} == {entries[0].vector}
            assert await self.workers[0].ask_authority(text) == entries[0].vector
        assert not any(worker.cache.waits for worker in self.workers)
        assert all(len(vectors) == 1 for vectors in self.shared.values())

    async def answer(self, number, text):
        worker = self.workers[number]
        before = self.running.get((worker, text))
        if before is None or before.done():
            task = asyncio.create_task(self.answered(worker, text))
            self.running[worker, text] = task
            self.tasks.append(task)

    async def answered(self, worker, text):
        where = worker.place.namespace
        entry = await worker.answer(text)
        if entry.shared and worker.place.namespace == where:
            self.shared[where, text].add(entry.vector)

    async def meet(self, number):
        await self.workers[number].met()

    async def fail(self, name, reason, verbs, late):
        self.shelves[name].fail(reason, *verbs, late=late)

    async def recover(self):
        for shelf in self.shelves.values():
            shelf.recover()

    async def damage(self):
        self.shelves["near"].damage()

    async def restart(self, number):
        worker = self.workers[number]
        await asyncio.gather(*(t for (w, _), t in self.running.items() if w is worker))
        self.workers[number] = self.worker(number)
        await self.workers[number].met()

    async def purge(self):
        purge(self.shelves["far"], self.workers[0].scope)

    async def run(self, count):
        for _ in range(count):
            await asyncio.sleep(0)
