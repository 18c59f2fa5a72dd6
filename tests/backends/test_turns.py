"""The order in which upstreams are asked, whatever state they are in and whatever they answer."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.backends.failover import most_telling, others_may_embed
from gateway.backends.turns import Turns
from gateway.errors import (
    GatewayError,
    InvalidRequestError,
    RateLimitError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
    retry_headers,
)
from gateway.resilience.circuit import Circuit
from tests.several import Clock, member

STATES = ("well", "failing", "lost", "cooling")
OUTCOMES = {
    "answer": None,
    "connect": UpstreamConnectError,
    "timeout": UpstreamTimeoutError,
    "broken": UpstreamError,
    "busy": lambda text: RateLimitError(text, headers=retry_headers(3)),
    "mistake": InvalidRequestError,
}
UPSTREAMS = st.lists(
    st.tuples(st.sampled_from(STATES), st.sampled_from(sorted(OUTCOMES)), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)


def in_state(state, clock):
    """Return the circuit of an upstream that is so."""
    circuit = Circuit(clock)
    if state in ("failing", "lost"):
        for _ in range(10):
            circuit.failed("connect")
            clock.now += 0.2 if state == "lost" else 0.0
        if state == "failing":
            circuit.succeeded()
            circuit.succeeded()
    if state == "cooling":
        circuit.throttled(30)
    return circuit


@given(upstreams=UPSTREAMS, weighted=st.booleans(), chances=st.data())
def test_each_is_asked_once_the_willing_first_until_one_serves(upstreams, weighted, chances):
    """Nobody after an answer or the client's mistake; else everybody, and the best error."""
    clock = Clock()
    members, outcomes = [], {}
    for number, (state, outcome, _) in enumerate(upstreams):
        members.append(member(f"u{number}"))
        members[-1].backend.circuit = in_state(state, clock)
        outcomes[f"u{number}"] = outcome
    weights = {f"u{number}": weight for number, (*_, weight) in enumerate(upstreams)}
    chance = lambda: chances.draw(st.floats(0, 1, exclude_max=True))  # noqa: E731
    gone_on = []
    turns = Turns(weights if weighted else None, chance, lambda *pair: gone_on.append(pair))
    willing = {m.backend.name for m in members if m.backend.circuit.permits(stand_in=True)}
    asked, errors = [], []

    async def call(member, stand_in):
        name = member.backend.name
        asked.append((name, stand_in))
        make = OUTCOMES[outcomes[name]]
        if make is not None:
            errors.append(make(name))
            raise errors[-1]
        return name

    async def scene():
        deadline = asyncio.get_running_loop().time() + 60
        return await turns.ask(members, call, others_may_embed, deadline)

    try:
        answer = asyncio.run(scene())
    except GatewayError as error:
        answer = None
        told = error
    names = [name for name, _ in asked]
    event(f"{len(names)} of {len(members)} asked")
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda name: name not in willing), "the willing are first"
    assert gone_on == list(pairwise(names))
    last = names[-1]
    if answer is not None:
        assert (answer, outcomes[last]) == (last, "answer")
    elif outcomes[last] == "mistake":
        assert told is errors[-1]
    else:
        assert len(names) == len(members)
        assert told is most_telling(errors)
    assert not {"answer", "mistake"} & {outcomes[name] for name in names[:-1]}
    for name, stand_in in asked:
        others = name != last or len(names) < len(members)
        assert stand_in == (name in willing and others)
    if not weighted:
        assert (
            names
            == [
                *[m.backend.name for m in members if m.backend.name in willing],
                *[m.backend.name for m in members if m.backend.name not in willing],
            ][: len(names)]
        )


def test_nobody_is_asked_once_the_time_is_over():
    """What is left of it is told."""
    members = [member("a"), member("b")]
    asked = []

    async def call(member, stand_in):
        asked.append(member.backend.name)
        await asyncio.sleep(0.02)
        raise UpstreamTimeoutError("late")

    async def scene():
        deadline = asyncio.get_running_loop().time() + 0.01
        await Turns(None, lambda: 0.5).ask(members, call, others_may_embed, deadline)

    with pytest.raises(UpstreamTimeoutError):
        asyncio.run(scene())
    assert asked == ["a"]
