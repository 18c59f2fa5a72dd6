"""Chats that the gateway refuses itself: bad bodies, unknown models, keys that do not fit."""

import pytest

from tests.chatting import body_of, chat, chat_model, refused, said

BAD = [
    (b"", 400, None),
    (b"{", 400, None),
    (b"[]", 400, None),
    (b'"x"', 400, None),
    (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', 400, None),
    (b'{"model":"m","messages":[{"role":"user","content":"\xed\xa0\x80"}]}', 400, None),
    (b'{"model":"m","messages":[' + b"[" * 20_000 + b"]" * 20_000 + b"]}", 400, None),
    (body_of(model=None), 400, "model"),
    (body_of(model=""), 400, "model"),
    (body_of(model=1), 400, "model"),
    (body_of(model="x" * 257), 400, "model"),
    (b'{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
    (b'{"model":"m"}', 400, "messages"),
    (body_of(messages=None), 400, "messages"),
    (body_of(messages=[]), 400, "messages"),
    (body_of(messages="hello"), 400, "messages"),
    (body_of(messages={}), 400, "messages"),
    (body_of(seed=2**63), 400, "seed"),
    (body_of(seed=-(2**63) - 1), 400, "seed"),
    (body_of(seed="1"), 400, "seed"),
    (body_of(seed=1.5), 400, "seed"),
    (body_of(seed=True), 400, "seed"),
    (body_of(stream="yes"), 400, "stream"),
    (body_of(stream=1), 400, "stream"),
    (body_of(stream=True, stream_options=1), 400, "stream_options"),
    (body_of(stream=True, stream_options={"include_usage": 1}), 400, "stream_options"),
    (body_of(model="nope"), 404, "model"),
]


@pytest.mark.parametrize(("body", "status", "param"), BAD, ids=range(len(BAD)))
def test_a_bad_request_is_refused_here(edge_chat, fake_openai, body, status, param):
    """With the field that is wrong; nobody is asked."""
    answer = edge_chat.http.post("/v1/chat/completions", content=body)
    assert (refused(answer)[0], refused(answer)[2]) == (status, param)
    assert fake_openai.chat.calls == []
    assert "cache-status" not in answer.headers


@pytest.fixture(scope="module")
def edge_chat(served_openai, module_gateway):
    """A gateway for all bad requests; nothing they do changes it."""
    toml = chat_model(served_openai.base_url, rest='[server]\nmax_body = "64KiB"')
    return module_gateway(
        f"""{toml}
        [models.e]
        task = "embedding"
        upstreams = ["fake"]
        [models.both]
        upstreams = ["fake"]
        """
    )


@pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1, 0, None])
def test_every_seed_of_openais_is_one(edge_chat, fake_openai, seed):
    """int64; null is none."""
    assert said(chat(edge_chat, seed=seed))
    assert fake_openai.chat.calls[0].request.body["seed"] == seed


def test_what_is_no_json_by_its_type_is_refused(edge_chat):
    """And what is too large, or packed."""
    for headers, status in (
        ({"content-type": "text/plain"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ):
        answer = chat(edge_chat, headers=headers)
        assert answer.status_code == status
    large = [{"role": "user", "content": "x" * 70_000}]
    assert refused(chat(edge_chat, messages=large))[:2] == (413, "payload_too_large")


def test_each_model_is_asked_for_what_it_does(edge_chat, fake_openai):
    """A model without a task does both."""
    assert refused(chat(edge_chat, model="e"))[::2] == (400, "model")
    embedded = edge_chat.embed("x")
    assert refused(embedded)[::2] == (400, "model")
    assert said(chat(edge_chat, model="both"))
    assert edge_chat.embed("x", "both").status_code == 200


def test_a_key_chats_with_its_models_alone(gateway, fake_openai):
    """As for embeddings: 401 without one, 403 for another model."""
    keys = '[[keys]]\nname = "a"\nsecret = "0123456789abcdef"\nmodels = ["other"]'
    running = gateway(
        chat_model(fake_openai.base_url, rest=keys)
        + '\n[models.other]\ntask = "chat"\nupstreams = ["fake"]'
    )
    bearer = {"authorization": "Bearer 0123456789abcdef"}
    assert refused(chat(running))[0] == 401
    assert refused(chat(running, headers=bearer))[0] == 403
    assert said(chat(running, headers=bearer, model="other"))
    assert len(fake_openai.chat.calls) == 1


def test_another_method_is_refused(edge_chat):
    """And told which one is taken."""
    answer = edge_chat.http.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
