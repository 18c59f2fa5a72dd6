"""No request can say where the gateway turns: 200 names at three depths, headers and queries.

Other gateways have let `api_base`, `base_url` or a field one level deeper name the upstream, and so
given their keys away. Here every value points to a trap that listens, to a file, and to a secret of
the environment: nobody connects to the trap, and neither the file nor the secret goes anywhere.
"""

import json
import socket
import threading
from contextlib import suppress
from urllib.parse import quote

import pytest

from tests.chatting import HELLO
from tests.running import one_model

SECRET = "an-environment-s3cret"
CONTENT = "the-content-of-a-f1le"

PARTS = (
    "api_base", "base_url", "api_key", "organization", "project", "headers", "extra_headers",
    "default_headers", "proxy", "proxies", "url", "uri", "host", "endpoint", "callback", "webhook",
    "model_list", "file", "path", "target", "upstream", "server", "backend", "provider", "router",
    "redirect", "location", "origin", "gateway", "region", "credentials", "token", "auth",
    "aws_access_key_id", "vertex_credentials", "azure_ad_token", "deployment", "api_version",
    "api_type", "socket",
)  # fmt: skip
NAMES = [
    *PARTS,
    *(f"x_{part}" for part in PARTS),
    *(f"litellm_{part}" for part in PARTS),
    *(f"custom_llm_{part}" for part in PARTS),
    *("".join(word.capitalize() for word in part.split("_")) for part in PARTS),
]
HEADERS = [
    "x-forwarded-host", "x-forwarded-server", "x-forwarded-for", "x-forwarded-proto", "forwarded",
    "x-original-url", "x-original-host", "x-rewrite-url", "x-host", "x-real-ip", "x-http-host",
    "x-litellm-api-base", "x-litellm-api-key", "x-litellm-model", "x-litellm-headers",
    "helicone-target-url", "helicone-auth", "helicone-openai-api-base", "helicone-fallbacks",
    "x-portkey-custom-host", "x-portkey-provider", "x-portkey-config", "x-portkey-api-key",
    "x-portkey-virtual-key", "x-base-url", "x-api-base", "x-api-key", "x-goog-api-key",
    "openai-organization", "openai-project", "openai-base-url", "proxy-authorization", "referer",
    "cf-aig-authorization", "x-upstream", "x-target", "x-proxy", "via", "cookie", "from",
]  # fmt: skip
SENT = {
    "host", "content-type", "content-length", "accept", "accept-encoding", "user-agent",
    "authorization", "connection",
}  # fmt: skip
"""All headers that go upstream."""
DEPTHS = (
    lambda name, value: {name: value},
    lambda name, value: {"extra_body": {name: value}},
    lambda name, value: {"metadata": {"litellm_params": {name: [value]}}},
)


class Trap:
    """Listens, and takes note of whoever comes."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self.caught = 0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self):
        with suppress(OSError):
            while True:
                self._socket.accept()[0].close()
                self.caught += 1

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def trap():
    """A trap in which nobody may be caught."""
    trap = Trap()
    yield trap
    trap.close()
    assert trap.caught == 0


@pytest.fixture
def values(trap, tmp_path):
    """What a field could be: an address, a file, a reference as the config has them."""
    file = tmp_path / "secret.txt"
    file.write_text(CONTENT)
    return [
        trap.address,
        {"url": trap.address, "path": str(file), "key": "${env:SECRET}"},
        [trap.address, f"file://{file}", f"${{file:{file}}}", "${env:SECRET}"],
    ]


@pytest.fixture
def running(gateway, fake_openai, monkeypatch):
    """One model that embeds and one that chats; the secret is there for the config to use."""
    monkeypatch.setenv("SECRET", SECRET)
    fake_openai.key = "the-key"
    rest = '[models.c]\ntask = "chat"\nupstreams = ["fake"]\n'
    toml = one_model(fake_openai.base_url, upstream='api_key = "the-key"') + rest
    return gateway(toml, SECRET=SECRET)


def bodies(fields):
    """Return a request for each endpoint with these fields."""
    yield "/v1/embeddings", {"model": "m", "input": "hello", **fields}
    yield "/v1/chat/completions", {"model": "c", "messages": HELLO, **fields}


def check(fake):
    """Whoever was asked is the upstream of the config, with its key, and was told no secret."""
    address = fake.base_url.removeprefix("http://").removesuffix("/v1")
    for request in fake.requests:
        assert request.headers["host"] == address
        assert request.headers["authorization"] == "Bearer the-key"
        assert request.headers.keys() <= SENT
        assert SECRET.encode() not in request.raw
        assert CONTENT.encode() not in request.raw


def test_there_are_two_hundred_names():
    """Or the tests below say less than they seem to."""
    assert len(set(NAMES)) == len(NAMES) == 200


def test_a_trap_catches(tmp_path):
    """Or nobody would ever be caught."""
    trap = Trap()
    socket.create_connection(("127.0.0.1", int(trap.address.split(":")[2][:-3]))).close()
    while not trap.caught:
        pass
    trap.close()


@pytest.mark.parametrize("depth", range(len(DEPTHS)))
def test_no_field_names_an_upstream(running, fake_openai, values, depth):
    """Unknown fields of embeddings are dropped; those of chats are the upstream's to judge."""
    for name in NAMES:
        for path, body in bodies(DEPTHS[depth](name, values[depth])):
            answer = running.http.post(path, json=body)
            assert answer.status_code in {200, 400}, answer.text
            assert SECRET not in answer.text
    check(fake_openai)
    asked = [r.path for r in fake_openai.requests]
    assert asked.count("/v1/chat/completions") == len(NAMES)


def test_no_header_and_no_query_names_an_upstream(running, fake_openai, trap):
    """Nor does any of them go upstream."""
    for name in HEADERS:
        for path, body in bodies({"user": name}):
            answer = running.http.post(path, json=body, headers={name: trap.address})
            assert answer.status_code == 200, answer.text
    for name in NAMES:
        for path, body in bodies({}):
            answer = running.http.post(path, params={name: trap.address}, json=body)
            assert answer.status_code == 200, answer.text
    check(fake_openai)
    assert {request.path for request in fake_openai.requests} == {
        "/v1/embeddings",
        "/v1/chat/completions",
    }


def test_no_name_of_a_model_is_an_address(running, fake_openai, trap):
    """Names are looked up, nothing else."""
    port = trap.address.split(":")[2][:-3]
    for name in (trap.address, f"openai/{trap.address}", f"//127.0.0.1:{port}", "../m", "m/../m"):
        for path, body in bodies({"model": name}):
            answer = running.http.post(path, json=body)
            assert answer.status_code == 404, answer.text
        assert running.http.get(f"/v1/models/{quote(name, safe='')}").status_code == 404
    assert fake_openai.requests == []


def test_addresses_in_a_chat_are_its_content(running, fake_openai, trap):
    """Pictures, files and tools are the upstream's to fetch: they pass as they came."""
    parts = [
        {"type": "text", "text": trap.address},
        {"type": "image_url", "image_url": {"url": f"{trap.address}/picture.png"}},
        {"type": "file", "file": {"file_data": f"{trap.address}/file.pdf"}},
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": trap.address}}]
    body = {"model": "c", "messages": [{"role": "user", "content": parts}], "tools": tools}
    answer = running.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    sent = json.loads(fake_openai.requests[-1].raw)
    assert sent["messages"] == body["messages"]
    assert sent["tools"] == tools
    check(fake_openai)


@pytest.mark.parametrize("line", [b"GET %b HTTP/1.1", b"POST %b/embeddings HTTP/1.1"])
def test_an_address_in_the_request_line_is_no_proxy_request(running, fake_openai, trap, line):
    """As a client sends it that takes us for a forward proxy; CONNECT is refused as well."""
    address = trap.address.encode()
    for first in (line % address, b"CONNECT %b HTTP/1.1" % address.split(b"/")[2]):
        with socket.create_connection(("127.0.0.1", running.port), 10) as connection:
            connection.sendall(first + b"\r\nhost: %b\r\n\r\n" % address.split(b"/")[2])
            connection.settimeout(10)
            said = connection.recv(1000)
        assert said.startswith(b"HTTP/1.1 4"), said
    assert fake_openai.requests == []
