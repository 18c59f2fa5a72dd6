"""Upstreams that are asked with the caller's own key: sent on, kept nowhere, a cache for each."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.cache.scopes import Scopes
from gateway.config import parse
from gateway.errors import ConfigError
from gateway.tenants import Tenants
from gateway.types import Caller, Credential
from tests.edge import error
from tests.running import one_model
from tests.upstream_behaviours import rate_limit, slow, status

ONE, TWO = "sk-one-0123456789-secret", "sk-two-0123456789-secret"
FORWARD = "forward_key = true"


def ask(running, text, key, model="m", **fields):
    headers = fields.pop("headers", {})
    if key is not None:
        headers = headers | {"authorization": f"Bearer {key}"}
    return running.embed(text, model, headers=headers, **fields)


def chat(running, key, **fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    headers = {"authorization": f"Bearer {key}"}
    return running.http.post("/v1/chat/completions", json=body, headers=headers)


def authorizations(fake):
    return [request.headers.get("authorization") for request in fake.requests]


def test_the_callers_key_goes_upstream_and_nothing_else_of_him(gateway, fake_openai):
    """With the organization and the project that he names; no other header."""
    running = gateway(one_model(fake_openai.base_url, upstream=FORWARD))
    own = {
        "openai-organization": "org-1", "openai-project": "proj-1", "cookie": "c=1",
        "x-forwarded-for": "1.2.3.4", "openai-beta": "x", "x-api-key": "y", "user-agent": "me",
    }  # fmt: skip
    assert ask(running, "a", ONE, headers=own).status_code == 200
    assert chat(running, TWO).status_code == 200
    assert authorizations(fake_openai) == [f"Bearer {ONE}", f"Bearer {TWO}"]
    sent, chatted = (request.headers for request in fake_openai.requests)
    assert (sent["openai-organization"], sent["openai-project"]) == ("org-1", "proj-1")
    assert not {"cookie", "x-forwarded-for", "openai-beta", "x-api-key"} & set(sent)
    assert sent["user-agent"] == "embedding-gateway"
    assert "openai-organization" not in chatted


def test_another_header_carries_it_where_the_upstream_wants_that(gateway, fake_openai):
    """As Azure does, both ways."""
    upstream = f'{FORWARD}\nauth_header = "api-key"'
    running = gateway(one_model(fake_openai.base_url, upstream=upstream))
    assert ask(running, "a", None, headers={"api-key": ONE}).status_code == 200
    assert ask(running, "b", ONE).status_code == 200
    assert [request.headers["api-key"] for request in fake_openai.requests] == [ONE, ONE]
    assert authorizations(fake_openai) == [None, None]


def test_each_key_has_a_cache_of_its_own(gateway, fake_openai):
    """Vectors and chats: who has another key is answered by the upstream, which may refuse him."""
    running = gateway(one_model(fake_openai.base_url, upstream=FORWARD))
    for key in (ONE, TWO, ONE, TWO):
        assert ask(running, "a", key).status_code == 200
        assert chat(running, key, seed=1).status_code == 200
    assert authorizations(fake_openai) == [f"Bearer {key}" for key in (ONE, ONE, TWO, TWO)]


def test_callers_may_share_what_is_cached(gateway, fake_openai):
    """Where the config says so; without a key nobody is answered."""
    running = gateway(one_model(fake_openai.base_url, upstream=f"{FORWARD}\nshared_cache = true"))
    for key in (ONE, TWO):
        assert ask(running, "a", key).status_code == 200
        assert chat(running, key, seed=1).status_code == 200
    assert authorizations(fake_openai) == [f"Bearer {ONE}"] * 2
    assert ask(running, "a", None).status_code == 401


@pytest.mark.parametrize("shared", ["", "shared_cache = true"])
def test_without_a_key_there_is_a_401(shared, gateway, fake_openai):
    """It says what to send; nothing goes upstream."""
    running = gateway(one_model(fake_openai.base_url, upstream=f"{FORWARD}\n{shared}"))
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answers = [ask(running, "a", None), running.http.post("/v1/chat/completions", json=body)]
    for answer in answers:
        assert (answer.status_code, error(answer)["code"]) == (401, "invalid_api_key")
        assert "your own API key" in error(answer)["message"]
    assert fake_openai.requests == []


@pytest.mark.parametrize("key", ["sk one", "sk-\u00e9", "k" * 513])
def test_a_key_that_cannot_be_sent_is_a_401(key, gateway, fake_openai):
    """And is not quoted."""
    running = gateway(one_model(fake_openai.base_url, upstream=FORWARD))
    headers = [(b"authorization", f"Bearer {key}".encode("latin-1"))]
    answer = running.http.post("/v1/embeddings", json={"model": "m", "input": "a"}, headers=headers)
    assert (answer.status_code, key in answer.text) == (401, False)
    assert fake_openai.requests == []


def test_a_key_that_the_upstream_refuses_is_the_clients_mistake(gateway, fake_openai):
    """401 and 403 are told as such, not as faults of the gateway, and quote no key."""
    fake_openai.key = ONE
    running = gateway(one_model(fake_openai.base_url, upstream=FORWARD))
    for answer in (ask(running, "a", TWO), chat(running, TWO), chat(running, TWO, stream=True)):
        assert (answer.status_code, error(answer)["code"]) == (401, "invalid_api_key")
        assert "x-should-retry" not in answer.headers
        assert TWO not in answer.text
        assert TWO[:6] not in answer.text
    assert ask(running, "a", ONE).status_code == 200
    said = {"error": {"message": f"Project of {ONE} may not", "code": "model_not_allowed"}}
    fake_openai.script(status(403, body=json.dumps(said).encode()))
    answer = ask(running, "b", ONE)
    assert (answer.status_code, error(answer)["code"]) == (403, "model_not_allowed")
    assert ONE not in answer.text
    assert "may not" in error(answer)["message"]


def test_the_config_s_own_key_is_still_the_gateways(gateway, fake_openai):
    """Beside an upstream that takes callers' keys, one that has its own: no key goes there."""
    other = f"""
        [upstreams.own]
        kind = "openai"
        base_url = "{fake_openai.base_url}"
        api_key = "the-gateways-own"
        [models.n]
        upstreams = ["own"]
    """
    running = gateway(one_model(fake_openai.base_url, upstream=FORWARD) + other)
    assert ask(running, "a", ONE, "n").status_code == 200
    assert ask(running, "a", None, "n").status_code == 200, "it is cached, for all"
    assert ask(running, "a", TWO, "m").status_code == 200
    assert authorizations(fake_openai) == ["Bearer the-gateways-own", f"Bearer {TWO}"]
    fake_openai.script(status(401))
    assert ask(running, "b", ONE, "n").status_code == 502


@pytest.mark.parametrize("behaviour", [rate_limit(code="insufficient_quota"), status(401)])
def test_what_one_key_is_refused_says_nothing_to_others(behaviour, gateway, fake_openai):
    """With one cache for all, who waits for a call of another's key has it made with his own."""
    running = gateway(one_model(fake_openai.base_url, upstream=f"{FORWARD}\nshared_cache = true"))
    for text in ("a", "b", "c"):
        seen = fake_openai.calls

        async def refuse_slowly(exchange):
            await slow(0.2)(exchange)
            if exchange.request.headers["authorization"].endswith(ONE):
                await behaviour(exchange)

        fake_openai.always(refuse_slowly)
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(ask, running, text, ONE)
            fake_openai.wait_for_calls(seen + 1)
            others = [pool.submit(ask, running, text, TWO) for _ in range(3)]
            assert first.result().status_code in {401, 429}
            assert [other.result().status_code for other in others] == [200] * 3
        assert fake_openai.calls == seen + 2


def test_the_list_of_models_is_that_of_the_key(gateway, fake_openai):
    """A pattern's names are what the upstream tells who asks; nobody else learns of them."""
    toml = f"""
        [upstreams.fake]
        kind = "openai"
        base_url = "{fake_openai.base_url}"
        {FORWARD}
        [models."*"]
        upstreams = ["fake"]
    """
    running = gateway(toml)
    fake_openai.key = ONE

    def listed(key):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        answer = running.http.get("/v1/models", headers=headers)
        assert answer.status_code == 200
        return {model["id"] for model in answer.json()["data"]}

    assert len(listed(ONE)) > 1
    assert listed(TWO) == set()
    assert listed(None) == set()
    assert len(listed(ONE)) > 1


def test_keys_are_in_no_log_and_no_store(gateway, fake_openai, tmp_path):
    """Nor in metrics: of a key there is a digest, which is keyed."""
    store = tmp_path / "store" / "cache.db"
    running = gateway(
        f'[server]\nlog_level = "debug"\n[cache]\nstore = "sqlite://{store}"\n'
        + one_model(fake_openai.base_url, upstream=FORWARD)
    )
    for key in (ONE, TWO):
        assert ask(running, "a", key).status_code == 200
        assert chat(running, key, seed=1).status_code == 200
    fake_openai.script(status(500), status(500), status(500))
    ask(running, "b", ONE)
    page = running.http.get("/metrics").text
    held = b"".join(file.read_bytes() for file in store.parent.iterdir())
    for secret in (ONE, TWO, "0123456789-secret"):
        assert secret not in running.log
        assert secret not in page
        assert secret.encode() not in held


@pytest.mark.parametrize(
    ("rest", "upstream", "words"),
    [
        ('[[keys]]\nname = "a"\nsecret = "12345678"', FORWARD, "callers have one key"),
        ("", f'{FORWARD}\napi_key = "${{env:KEY}}"', "in place of api_key"),
        ("", "shared_cache = true", "without forward_key"),
        (
            "",
            f'{FORWARD}\nheaders = {{ authorization = "x" }}',
            "the header that carries the caller's key",
        ),
    ],
)
def test_what_makes_no_sense_with_it_is_an_error_of_the_config(rest, upstream, words):
    """Each is said before anything is served."""
    toml = one_model("http://127.0.0.1:1/v1", upstream=upstream, rest=rest)
    with pytest.raises(ConfigError, match=words):
        parse(toml, source=None, environ={"KEY": "x"}, base_dir=Path("/"))


def test_keys_that_come_and_go_leave_nothing_behind():
    """Which keys there are is the clients' choice: of most there is nothing after a while."""
    scopes = Scopes(b"s" * 32)
    tenants = Tenants("i", "m", scopes, forwards=True, split=True)
    kept = Caller(credential=Credential("kept"))
    first = tenants.place(kept)
    for number in range(5000):
        tenants.place(Caller(credential=Credential(f"sk-{number}")))
        assert tenants.place(kept) is first
    gc.collect()  # a scope and its place know each other
    assert len(list(scopes)) <= 1024
    assert all("sk-" not in scope.fact.tenant for scope in scopes)


def test_a_credential_is_never_shown():
    """Whoever logs a caller, or raises with one in a frame that is shown, tells no key."""
    caller = Caller(credential=Credential(ONE, "org-secret"))
    assert ONE not in repr(caller) + str(caller.credential) + f"{caller}"
    assert "org-secret" not in repr(caller.credential)


def test_members_of_a_space_cannot_be_asked_with_callers_keys():
    """Nobody could compare their vectors before the first caller."""
    toml = f"""
        [upstreams.a]
        kind = "openai"
        base_url = "http://127.0.0.1:1/v1"
        {FORWARD}
        [upstreams.b]
        kind = "openai"
        base_url = "http://127.0.0.1:2/v1"
        [models.m]
        task = "embedding"
        space = "s"
        upstreams = ["a", "b"]
    """
    with pytest.raises(ConfigError, match="name it alone"):
        parse(toml, source=None, environ={}, base_dir=Path("/"))
