"""Several upstreams for chats: another one answers, as long as this one has not begun to."""

import asyncio
import json
from collections import Counter

import pytest

from gateway.backends.member import Member
from gateway.backends.several import ChatUpstreams
from gateway.backends.turns import Turns
from gateway.errors import UpstreamConnectError
from gateway.types import Caller
from tests import upstream_chat_behaviours as behave
from tests.backend import Backend
from tests.chatting import chat, refused, said
from tests.pair import free_port, nobody, several
from tests.upstream import FakeOpenAI, serve
from tests.upstream_behaviours import Hang

CHAT = 'task = "chat"\n'


@pytest.fixture(scope="module")
def fakes():
    """Two upstreams for this module; `pair` has them behave."""
    both = FakeOpenAI(), FakeOpenAI()
    with serve(both[0]), serve(both[1]):
        yield both


@pytest.fixture
def pair(fakes):
    for fake in fakes:
        fake.forget()
        fake.models, fake.key = (), None
    return fakes


@pytest.fixture
def running(gateway, pair):
    a, b = pair
    model = f'{CHAT}upstream_model = {{ b = "other" }}'
    return gateway(several(a.base_url, b.base_url, model=model, b='api_key = "sk-secret-of-b"'))


def answered(fake):
    """Return the models that an upstream was asked for."""
    return [call.request.body["model"] for call in fake.chat.calls]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "behaviour",
    [
        behave.refuse(429, headers={"retry-after": "30"}),
        behave.refuse(429, code="insufficient_quota"),
        behave.refuse(503),
        behave.refuse(401),
        behave.refuse(403),
    ],
)
def test_what_the_first_upstream_does_not_begin_the_second_answers(
    running, pair, behaviour, stream
):
    """Under its own name of the model, with all else as it was sent."""
    a, b = pair
    a.chat.script(behaviour)
    assert said(chat(running, stream=stream, temperature=0.3))
    assert (answered(a), answered(b)) == (["m"], ["other"])
    sent = [fake.chat.calls[0].request.raw for fake in pair]
    assert sent[0].replace(b'"model":"m"', b'"model":"other"') == sent[1]
    assert b'"temperature":0.3' in sent[1]
    assert running.metric("gateway_upstream_failovers_total", model="m", to="b") == 1


def test_an_upstream_that_is_not_there_is_stood_in_for(gateway, pair):
    """No connection, no answer."""
    _, b = pair
    running = gateway(several(nobody(), b.base_url, model=CHAT))
    assert said(chat(running))
    assert said(chat(running, stream=True))
    assert len(answered(b)) == 2


@pytest.mark.parametrize("status", [500, 502, 504, 400, 404, 422])
def test_an_answer_that_may_have_been_begun_is_not_asked_for_again(running, pair, status):
    """It may be billed, and may have done something; and mistakes are the client's."""
    a, b = pair
    a.chat.script(behave.refuse(status))
    assert chat(running).status_code >= 400
    assert (answered(a), answered(b)) == (["m"], [])


def test_a_slow_answer_is_waited_for(gateway, pair):
    """A read timeout says nothing of what the upstream has done."""
    a, b = pair
    rest = '[server]\nchat_timeout = "300ms"'
    running = gateway(several(a.base_url, b.base_url, model=CHAT, rest=rest))
    a.chat.script(behave.slow(0, headers=5))
    assert refused(chat(running))[0] == 504
    assert answered(b) == []


def test_a_stream_that_breaks_is_not_begun_anew(running, pair):
    """Its client has a part of it: it ends with an error, in the name of who broke it."""
    a, b = pair
    a.chat.script(behave.cut(2))
    told = chat(running, stream=True).text
    assert json.loads(told.splitlines()[-2].removeprefix("data: "))["error"]
    assert answered(b) == []


def test_an_error_in_place_of_an_answer_is_the_answering_upstreams(running, pair):
    """Its name and its secrets: the first one's would not be looked for there."""
    a, b = pair
    error = {"message": "no such key: sk-secret-of-b", "type": "server_error", "code": None}
    for stream in (False, True):
        a.chat.script(behave.refuse(503))
        body = json.dumps({"error": error}).encode()
        b.chat.script(behave.error_event(0, error) if stream else behave.refuse(200, body=body))
        answer = chat(running, stream=stream)
        assert answer.status_code == 502, answer.text
        assert "sk-secret" not in answer.text


def test_where_all_fail_the_client_is_told_when_to_come_back(gateway, pair):
    """The soonest of their times, as all of them are beyond the request's."""
    a, b = pair
    rest = '[server]\nchat_timeout = "1s"'
    running = gateway(several(a.base_url, b.base_url, model=CHAT, rest=rest))
    a.chat.script(behave.refuse(429, headers={"retry-after": "9"}))
    b.chat.always(behave.refuse(503, headers={"retry-after": "40"}))
    answer = chat(running)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "9")


def test_where_nobody_is_asked_any_more_the_client_is_told_when_to_come_back(gateway):
    """At once, after both have been away for a while."""
    running = gateway(several(nobody(), nobody(), model=CHAT))
    running.wait_until(lambda: refused(chat(running))[1] == "upstream_unavailable")
    answer = chat(running)
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 5


def test_a_seeded_chat_is_kept_whoever_answered_it(gateway, pair):
    """Its identity names all who may: with both away it is told again."""
    _, b = pair
    port = free_port()
    with serve(FakeOpenAI(), port=port) as served:
        running = gateway(several(served.app.base_url, b.base_url, model=CHAT))
        first = said(chat(running, seed=1))
    second = said(chat(running, seed=2))
    b.chat.always(behave.refuse(503))
    assert said(chat(running, seed=1)) == first
    assert said(chat(running, seed=2)) == second
    assert chat(running, seed=3).status_code == 503


def test_weights_share_chats_out(gateway, pair):
    """One to one; more than five sigma off would be a defect."""
    a, b = pair
    model = f"{CHAT}weights = {{ a = 1, b = 1 }}"
    running = gateway(several(a.base_url, b.base_url, model=model))
    for _ in range(200):
        chat(running)
    shares = Counter(a=len(answered(a)), b=len(answered(b)))
    assert shares.total() == 200
    assert abs(shares["a"] - 100) <= 5 * (200 / 4) ** 0.5


def test_a_client_that_leaves_stops_the_upstream_that_answers(running, pair):
    """Also behind a failover."""
    a, b = pair
    hang = Hang()
    a.chat.script(behave.refuse(503))
    b.chat.script(behave.stall(hang, 2))
    with running.http.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True},
    ) as stream:
        next(stream.iter_bytes())
    b.chat.wait_for_left()
    hang.release()


def test_a_pattern_goes_to_several_and_lists_what_all_of_them_serve(gateway, pair):
    """A name that only one of them knows would be a 404 whenever the other answers."""
    a, b = pair
    a.models, b.models = ("gpt-1", "gpt-2"), ("gpt-2", "gpt-3")
    toml = several(a.base_url, b.base_url, model=CHAT).replace("[models.m]", '[models."gpt-*"]')
    running = gateway(toml)
    listed = [each["id"] for each in running.http.get("/v1/models").json()["data"]]
    assert listed == ["gpt-2"]
    a.chat.script(behave.refuse(503))
    assert said(chat(running, model="gpt-2"))
    assert (answered(a), answered(b)) == (["gpt-2"], ["gpt-2"])


def test_an_engine_is_told_the_tenant_and_others_are_not():
    """What prompts have in common is kept there, and must not tell of other tenants'."""

    bodies = []

    class Chatting(Backend):
        """Takes bodies, and is away."""

        async def chat(self, body, **_):
            bodies.append(json.loads(body))
            raise UpstreamConnectError("nobody is there")

    members = [Member(Chatting("here"), None, local=True), Member(Chatting("there"), "n")]
    backend = ChatUpstreams(members, Turns(None, lambda: 0.5))
    asking = backend.chat(
        b'{"model":"m","x":1.50}',
        stream=False,
        quotable=(),
        deadline=1e9,
        silence=1.0,
        caller=Caller(tenant="t"),
    )
    with pytest.raises(UpstreamConnectError):
        asyncio.run(asking)
    assert bodies == [{"model": "m", "x": 1.5, "prompt_cache_key": "t"}, {"model": "n", "x": 1.5}]
