"""A new config in a gateway that runs: what changes with it, and what it leaves alone."""

import asyncio
import json
import re
import threading
from collections import Counter

import pytest
from config_texts import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app import Gateway
from gateway.foundation import Foundation
from gateway.logs import open_log
from gateway.running.door import Door
from tests import upstream_behaviours as behave
from tests import upstream_chat_behaviours as chat_behave
from tests.chatting import begin, chunks, read_until
from tests.running import one_model
from tests.upstream import FakeOpenAI, serve


def key(name, secret):
    return f'[[keys]]\nname = "{name}"\nsecret = "{secret}"\n'


def config(base_url, **options):
    """Return a checked config of one model."""
    return parse(one_model(base_url, **options))


@pytest.fixture
def other():
    """Another upstream, whose vectors are as wide and not the same."""
    with serve(FakeOpenAI(width=32, noise=0.1)) as served:
        yield served.app


def test_keys_come_and_go(gateway, fake_openai):
    """A key that is taken away is refused at once, a new one taken."""
    toml = one_model(fake_openai.base_url, rest=key("old", "old-secret"))
    running = gateway(toml)
    old, new = ({"authorization": f"Bearer {name}-secret"} for name in ("old", "new"))
    assert [200, 401] == [running.embed("x", headers=h).status_code for h in (old, new)]
    running.reload(config(fake_openai.base_url, rest=key("new", "new-secret")))
    assert [401, 200] == [running.embed("x", headers=h).status_code for h in (old, new)]


def test_models_come_and_go(gateway, fake_openai):
    """Under their new names they are counted too, and the removed one is a 404."""
    running = gateway(one_model(fake_openai.base_url))
    assert running.embed("x").status_code == 200
    toml = one_model(fake_openai.base_url).replace("[models.m]", "[models.n]")
    running.reload(parse(toml))
    assert running.embed("x").status_code == 404
    assert running.embed("x", model="n").status_code == 200
    assert [model["id"] for model in running.http.get("/v1/models").json()["data"]] == ["n"]
    assert running.metric("gateway_requests_total", model="m", code="200") == 1
    assert running.metric("gateway_requests_total", model="n", code="200") == 1


def test_what_is_in_memory_stays(gateway, fake_openai):
    """P2: the same vector before and after, with memory alone, though upstream's differ."""
    fake_openai.noise = 0.1
    running = gateway(one_model(fake_openai.base_url))
    before = running.vectors(["kept"])
    running.reload(config(fake_openai.base_url, rest=key("k", "the-secret")))
    again = running.vectors(["kept"], headers={"authorization": "Bearer the-secret"})
    assert again == before
    assert fake_openai.calls == 1


def test_another_address_is_another_space(gateway, fake_openai, other):
    """P6: what the old upstream made is not the new one's."""
    running = gateway(one_model(fake_openai.base_url))
    before = running.vectors(["text"])
    running.reload(config(other.base_url))
    assert running.vectors(["text"]) != before
    assert other.calls == 1


def test_only_what_changed_is_made_anew(gateway, fake_openai):
    """The connections of an upstream that stays stay open; those of one that went are closed."""
    two = one_model(fake_openai.base_url) + (
        f'[upstreams.two]\nkind = "openai"\nbase_url = "{fake_openai.base_url}"\n'
        'api_key = "first-key"\n[models.n]\nupstreams = ["two"]\n'
    )
    running = gateway(two)
    before = dict(running.gateway.backends)
    running.reload(parse(two.replace("first-key", "second-key")))
    after = running.gateway.backends
    assert after["fake"] is before["fake"]
    assert after["two"] is not before["two"]
    running.vectors(["x"], model="n")
    assert fake_openai.requests[-1].headers["authorization"] == "Bearer second-key"
    running.wait_until(lambda: len(running.gateways) == 1)


def test_a_request_ends_on_the_config_it_began_with(gateway, fake_openai, other):
    """A call under way is answered by the old upstream, one that comes then by the new one."""
    running = gateway(one_model(fake_openai.base_url))
    hang = behave.Hang()
    fake_openai.script(hang)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(running.embed("same text")))
    asking.start()
    hang.reached.result(10)
    running.reload(config(other.base_url, rest=key("k", "the-secret")))
    new = running.embed("same text", headers={"authorization": "Bearer the-secret"})
    assert len(running.gateways) == 2
    hang.release()
    asking.join(10)
    assert [200, 200] == [answers[0].status_code, new.status_code]
    assert answers[0].json()["data"] != new.json()["data"]
    assert (fake_openai.calls, other.calls) == (1, 1)
    running.wait_until(lambda: len(running.gateways) == 1)


@pytest.mark.parametrize("seed", [None, 1], ids=["relayed", "recorded"])
def test_a_stream_ends_where_it_began(gateway, fake_openai, other, seed):
    """Whatever becomes of its upstream in the config meanwhile."""
    running = gateway(one_model(fake_openai.base_url))
    hang = behave.Hang()
    fake_openai.chat.script(chat_behave.stall(hang, 2))
    stream = begin(running, stream=True, seed=seed)
    hang.reached.result(10)
    running.reload(config(other.base_url))
    assert running.embed("new").status_code == 200
    hang.release()
    received = read_until(stream, b"data: [DONE]")
    assert len(chunks(received.partition(b"\r\n\r\n")[2])) > 2
    assert (len(fake_openai.chat.calls), len(other.chat.calls)) == (1, 0)
    stream.close()
    running.wait_until(lambda: len(running.gateways) == 1)


def test_a_removed_engine_shows_no_figures(gateway, fake_openai):
    """What a scrape says is of the current config's upstreams."""
    running = gateway(one_model(fake_openai.base_url))
    running.reload(parse(one_model(fake_openai.base_url).replace("fake", "new")))
    assert running.embed("x").status_code == 200
    assert running.metric("gateway_upstream_requests_total", upstream="new") == 1


# One door, any order

_ACT = st.one_of(st.just("change"), st.just("begin"), st.tuples(st.just("end"), st.integers(0, 99)))


@settings(max_examples=60)
@given(st.lists(_ACT, max_size=25))
def test_every_request_has_one_config_from_beginning_to_end(tmp_path_factory, acts):
    """Whatever the order: and each config is closed once, after its last request."""
    asyncio.run(_go_through(acts, tmp_path_factory.getbasetemp()))


async def _go_through(acts, directory):
    first = parse(_with_model(0))
    foundation = Foundation(first, directory, open_log("error", "json"))
    closed = Counter()
    door = Door(Gateway(first, foundation), lambda gateway: closed.update([name_of(gateway)]))
    changes, running = 0, []
    for act in acts:
        if act == "change":
            changes += 1
            await door.change(Gateway(parse(_with_model(changes)), foundation, door.current))
        elif act == "begin":
            running.append((changes, Lingering(door)))
        elif running:
            began_with, request = running.pop(act[1] % len(running))
            assert await request.end() == f"m{began_with}"
        await asyncio.sleep(0)
        assert not closed.keys() & {began_with for began_with, _ in running} - {changes}
        assert changes not in closed
    for began_with, request in running:
        assert await request.end() == f"m{began_with}"
    await door.aclose()
    await foundation.aclose()
    assert closed == Counter(range(changes))
    assert door.running == 0


def name_of(gateway):
    return int(next(iter(gateway.config.models)).removeprefix("m"))


def _with_model(number):
    return one_model("http://127.0.0.1:9/v1").replace("[models.m]", f"[models.m{number}]")


class Lingering:
    """A request whose body comes only at its end."""

    def __init__(self, door):
        self._body = asyncio.get_running_loop().create_future()
        self._sent = b""
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/embeddings",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        }
        self._task = asyncio.ensure_future(door.public(scope, self._receive, self._send))

    async def end(self):
        """Return which model is said to be served, once the request has ended."""
        self._body.set_result(b'{"model": "nobody", "input": "x"}')
        await self._task
        message = json.loads(self._sent)["error"]["message"]
        (served,) = re.findall(r"\bm\d+\b", message)
        return served

    async def _receive(self):
        return {"type": "http.request", "body": await self._body}

    async def _send(self, message):
        self._sent += message.get("body", b"")
