"""The servers people put behind it: each answers in its own way, the client sees one way.

What each does is written down in `upstream_flavours`: order, flat errors, floats although base64
was asked for, no usage, limits of their own.
"""

import numpy as np
import pytest

from gateway.backends.transport import open_transport
from tests import upstream_behaviours as behave
from tests.running import one_model
from tests.upstream_flavours import FLAVOURS

PEERS = sorted(set(FLAVOURS) - {"openai"})


@pytest.fixture(params=PEERS)
def peer(request, fake_openai):
    fake_openai.flavour = request.param
    return fake_openai


class Watched:
    """A real transport that notes every address, and may be told what a list of models is."""

    def __init__(self, inner, urls, models=None):
        self.inner = inner
        self.urls = urls
        self.models = models

    async def send(self, method, url, headers, body, *, timeout):
        self.urls.append(url)
        reply = await self.inner.send(method, url, headers, body, timeout=timeout)
        if self.models is not None and url.endswith("/models"):
            return type(reply)(200, reply.headers, self.models)
        return reply

    async def aclose(self):
        await self.inner.aclose()


def watched(urls, **options):
    return lambda settings: Watched(open_transport(settings), urls, **options)


def right(fake, *texts, width=None):
    rows = np.array([fake.vector("m", text) for text in texts], np.float64)[:, :width]
    return rows / np.linalg.norm(rows, axis=1)[:, None]


def close(vectors, expected):
    """Within float32: peers that normalize have rounded once before us."""
    return np.abs(np.array(vectors) - expected).max() < 1e-6


def test_every_peer_gives_unit_vectors_in_both_forms(gateway, peer):
    """Normalized or not, base64 or not: the client's two forms are the same bits, of length 1."""
    running = gateway(one_model(peer.base_url))
    texts = ["one", "two", "three"]
    answer = running.client.embeddings.create(model="m", input=texts)
    vectors = [item.embedding for item in answer.data]
    assert close(vectors, right(peer, *texts))
    assert np.abs(np.linalg.norm(np.array(vectors), axis=1) - 1).max() < 1e-6
    assert running.vectors(texts) == vectors
    assert peer.calls == 1
    assert answer.model == "m"
    assert answer.usage.total_tokens > 0 or peer.flavour == "lmstudio"


def test_dimensions_are_cut_here_whatever_the_peer_does_with_them(gateway, peer):
    """Ignored, refused or cut without normalizing there: it is never asked."""
    running = gateway(one_model(peer.base_url, model='dimensions = "any"'))
    assert close(running.vectors("one", dimensions=8), right(peer, "one", width=8))
    assert "dimensions" not in peer.requests[0].body


def test_a_seed_and_unknown_fields_do_not_reach_a_peer(gateway, peer):
    """Some refuse what they do not know, some heed it."""
    running = gateway(one_model(peer.base_url))
    assert running.embed("one", seed=1, unknown="x").status_code == 200
    assert peer.requests[0].body.keys() <= {"model", "input", "encoding_format"}


def test_items_in_another_order_are_placed(gateway, peer):
    """By their index, from every server."""
    running = gateway(one_model(peer.base_url))
    peer.script(behave.shuffle)
    assert close(running.vectors(["a", "b", "c"]), right(peer, "a", "b", "c"))


def test_a_batch_larger_than_the_peer_takes_is_split(gateway, fake_openai):
    """TEI takes 32 texts a call."""
    fake_openai.flavour = "tei"
    running = gateway(one_model(fake_openai.base_url, upstream="max_batch = 32"))
    texts = [f"text {n}" for n in range(100)]
    assert close(running.vectors(texts), right(fake_openai, *texts))
    assert sorted(len(r.body["input"]) for r in fake_openai.requests) == [4, 32, 32, 32]


@pytest.mark.parametrize(
    ("flavour", "texts", "words"),
    [
        ("tei", ["a"] * 33, "batch size 33 > maximum allowed batch size 32"),
        ("ollama", [[1, 2]], "invalid input type"),
        ("lmstudio", [[1, 2]], "'input' field must be a string or an array of strings"),
    ],
)
def test_what_a_peer_refuses_is_a_400_in_openais_form(gateway, fake_openai, flavour, texts, words):
    """Flat bodies, plain strings, numbers for codes: one form for the client, in their words."""
    fake_openai.flavour = flavour
    running = gateway(one_model(fake_openai.base_url))
    distinct = [f"{n}" for n in range(33)] if texts[0] == "a" else texts
    refused = running.embed(distinct)
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert words in error["message"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] is None or isinstance(error["code"], str)


def test_a_refused_key_is_told_alike_for_every_peer(gateway, peer):
    """An empty 401, a flat one, one that shows the key: one 502."""
    peer.key = "right-key"
    toml = one_model(peer.base_url, upstream='api_key = "${env:KEY}"')
    refused = gateway(toml, KEY="wrong-key-of-ours").embed("one")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (502, "upstream_authentication")
    assert "wrong" not in refused.text


def test_a_peer_is_called_with_its_key_and_headers(gateway, fake_openai):
    """A bearer by default, another header where the config names one, and what else it says."""
    plain = one_model(fake_openai.base_url, upstream='api_key = "${env:KEY}"')
    azure = one_model(
        fake_openai.base_url,
        upstream="""
            api_key = "${env:KEY}"
            auth_header = "Api-Key"
            headers = { X-Team = "search" }
            query = { api-version = "2024-10-21", x = "a b&c" }
        """,
    )
    urls = []
    gateway(plain, KEY="sk-plain", open_transport=watched(urls)).embed("one")
    gateway(azure, KEY="sk-azure", open_transport=watched(urls)).embed("one")
    first, second = fake_openai.requests
    assert first.headers["authorization"] == "Bearer sk-plain"
    assert "authorization" not in second.headers
    assert (second.headers["api-key"], second.headers["x-team"]) == ("sk-azure", "search")
    assert second.headers["content-type"] == "application/json"
    assert "?" not in urls[0]
    assert urls[1].endswith("/v1/embeddings?api-version=2024-10-21&x=a+b%26c")


@pytest.mark.parametrize("encoding", ["base64", "float", "none"])
def test_the_encoding_that_is_asked_for_is_the_configs(gateway, fake_openai, encoding):
    """`none` is for servers that refuse the field; the client's own wish does not matter."""
    running = gateway(one_model(fake_openai.base_url, upstream=f'encoding = "{encoding}"'))
    assert close(running.vectors("one"), right(fake_openai, "one"))
    asked = fake_openai.requests[0].body.get("encoding_format", "none")
    assert asked == encoding


def test_half_a_character_in_ids_is_not_sent_to_who_has_other_ids(gateway, fake_openai):
    """P1: with `token_ids = "decode"` the ids are cl100k's; to another vocabulary they are noise.

    LangChain cuts long texts by tokens, and so through the middle of an emoji. OpenAI's models
    know these ids; whoever else is behind gets text, or the client gets a 400.
    """
    fake_openai.flavour = "tei"
    running = gateway(one_model(fake_openai.base_url, model='token_ids = "decode"'))
    answer = running.embed([[15339, 9468]])
    assert answer.status_code in (200, 400)
    assert not [text for text in fake_openai.texts if not isinstance(text, str)]


def test_half_a_character_in_ids_goes_as_ids_to_openai(gateway, fake_openai):
    """Its models know them: nothing is lost; in a call of their own, as it takes no mixture."""
    toml = one_model(fake_openai.base_url).replace("models.m", 'models."text-embedding-*"')
    running = gateway(toml)
    vectors = running.vectors([[15339], [15339, 9468], [1917]], "text-embedding-3-small")
    texts = ["hello", [15339, 9468], " world"]
    rows = [fake_openai.vector("text-embedding-3-small", text) for text in texts]
    assert close(vectors, [row / np.linalg.norm(row) for row in rows])
    calls = [request.body["input"] for request in fake_openai.requests]
    assert sorted(calls, key=str) == [["hello", " world"], [[15339, 9468]]]


def test_a_prefix_stands_before_every_text_whatever_form_it_came_in(gateway, fake_openai):
    """A text that cannot be prefixed is not embedded without."""
    toml = one_model(fake_openai.base_url, model='token_ids = "decode"\nprefix = "query: "')
    running = gateway(toml)
    running.embed("hello world")
    running.embed([[15339, 1917]])
    running.embed([[15339, 9468]])
    assert fake_openai.texts[0] == "query: hello world"
    assert all(isinstance(t, str) and t.startswith("query: ") for t in fake_openai.texts)


def test_the_models_of_a_pattern_are_the_peers_own(gateway, fake_openai):
    """What the upstream lists and the pattern covers; the SDK reads it."""
    fake_openai.models = ("text-embedding-3-small", "text-embedding-3-large", "tts-1")
    toml = one_model(fake_openai.base_url).replace("models.m", 'models."text-embedding-*"')
    running = gateway(toml)
    listed = running.client.models.list().data
    assert [model.id for model in listed] == ["text-embedding-3-small", "text-embedding-3-large"]
    one = running.client.models.retrieve("text-embedding-3-large")
    assert (one.id, one.owned_by) == ("text-embedding-3-large", "fake")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"<html>", b'{"data":[{"id":"\xff"}]}', b'{"data":null}', b"[" * 10_000]
)
def test_a_peer_without_a_list_of_models_leaves_ours_as_it_is(gateway, fake_openai, body):
    """What it answers instead is nobody's error."""

    toml = one_model(fake_openai.base_url) + '[models."text-*"]\nupstreams = ["fake"]'
    running = gateway(toml, open_transport=watched([], models=body))
    assert [model["id"] for model in running.http.get("/v1/models").json()["data"]] == ["m"]
