"""Flights in every order in which requests can ask, look, leave, be answered and fail."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.flight import Flights, land
from tests.cache.flying import Call, FaultError, settle

steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "look", "leave", "answer", "answer", "fail", "run"]),
        st.integers(0, 5),
        st.sets(st.sampled_from([b"a", b"b", b"c"]), min_size=1),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(steps=steps)
def test_no_order_of_events_breaks_the_rules(steps):
    """One live call a key, none without a waiter, none called off while somebody waits."""
    asyncio.run(Story().play(steps))


class Work:
    """A look or a call of the story, and the keys that its whole flight carries."""

    def __init__(self, keys, flight, *, looks):
        self.keys = sorted(keys)
        self.flight = flight
        self.looks = looks
        self.call = Call()

    @property
    def live(self):
        """Whether somebody may still be brought something by it."""
        return self.call.begun and not self.call.answer.done()


class Story:
    """Requests that ask, look, leave, are answered and fail in a given order."""

    def __init__(self):
        self.flights = Flights()
        self.works = []
        self.requests = []  # (task, keys)

    async def request(self, keys, *, looks):
        others = {}
        for key in sorted(keys):
            flight = self.flights.get(key)
            if flight is not None:
                others.setdefault(flight, []).append(key)
        mine = keys.difference(*others.values())
        if not mine:
            return await land(None, others)
        if looks:
            find = self.begin(mine, mine, looks=True)
            own = self.flights.look_up(sorted(mine), find, self.planned(mine))
        else:
            own = self.flights.ask(self.parts(mine, mine))
        return await land(own, others)

    def planned(self, keys):
        async def plan(found):
            await asyncio.sleep(0)
            return self.parts(keys - found.keys(), keys)

        return plan

    def parts(self, keys, flight):
        """Ask for the first key by itself, for the others together."""
        parts = [part for part in (sorted(keys)[:1], sorted(keys)[1:]) if part]
        return [(part, self.begin(part, flight, looks=False)()) for part in parts]

    def begin(self, keys, flight, *, looks):
        self.works.append(Work(keys, flight, looks=looks))
        return self.works[-1].call

    async def play(self, steps):
        for action, which, keys in steps:
            self.act(action, which, keys)
            if action == "run":
                await settle()
                self.check()
        await settle()
        self.check()
        while live := [work for work in self.works if work.live]:
            live[0].call.answer.set_exception(FaultError())
            await settle()
            self.check()
        assert all(task.done() for task, _ in self.requests)
        assert len(self.flights) == 0
        for task, keys in self.requests:
            if not task.cancelled() and not task.exception():
                assert keys <= task.result().keys()

    def act(self, action, which, keys):
        if action in {"ask", "look"}:
            request = self.request(keys, looks=action == "look")
            self.requests.append((asyncio.ensure_future(request), keys))
        elif action == "leave" and self.requests:
            self.requests[which % len(self.requests)][0].cancel()
        elif action in {"answer", "fail"} and (live := [w for w in self.works if w.live]):
            work = live[which % len(live)]
            if action == "fail":
                work.call.answer.set_exception(FaultError())
            else:
                # A look finds some of its keys, a call brings all of them.
                brought = keys & set(work.keys) if work.looks else work.keys
                work.call.answer.set_result(dict.fromkeys(brought, "vector"))

    def check(self):
        live = [work for work in self.works if work.live]
        carried = [key for work in live for key in work.keys]
        assert len(carried) == len(set(carried)), "two calls for one key"
        wanted = {key for task, keys in self.requests if not task.done() for key in keys}
        for work in live:
            assert work.flight & wanted, "a call of a flight that nobody waits for"
            assert all(self.flights.get(key) is not None for key in work.keys)
        for task, keys in self.requests:
            assert task.done() or keys & set(carried), "a request that waits for no call"
