"""The ways to an upstream, on both clients: TLS, proxies, Unix sockets, the environment."""

import asyncio
import socket
import ssl
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

import pytest
import truststore

from gateway.backends.aiohttp_transport import AiohttpTransport
from gateway.backends.exchange import broken
from gateway.backends.reach import TransportSettings, tls_context
from gateway.backends.transport import open_transport
from gateway.errors import ConfigError, UpstreamConnectError, UpstreamTimeoutError
from tests.backends.sockets import OK, listen, make_authority, post, proxy

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:9/v1/embeddings"


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A CA, and a certificate for 127.0.0.1 with its key."""
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(authority):
    """What a TLS server on 127.0.0.1 needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority[1], authority[2])
    return context


@pytest.fixture
def folder():
    """A folder with a name short enough for a Unix socket's path."""
    with tempfile.TemporaryDirectory(prefix="eg") as name:
        yield Path(name)


def secure(wire):
    return wire.url.replace("http:", "https:")


async def test_own_authority_is_trusted(make, authority, tls):
    """With `ca_file`, a server that the CA has signed is spoken to, over one connection."""
    transport = make(ca_file=authority[0])
    async with listen(OK, tls=tls) as wire:
        for _ in range(2):
            assert (await post(transport, secure(wire))).body == b"{}"
    assert wire.connections == 1


async def test_unknown_authority_is_not_trusted(make, tls):
    """Without it the certificate is refused, with the reason and before a request is sent."""
    async with listen(OK, tls=tls) as wire:
        with pytest.raises(UpstreamConnectError, match="certificate cannot be trusted") as caught:
            await post(make(), secure(wire))
    assert "unable to get local issuer certificate" in caught.value.message
    assert wire.requests == []


async def test_certificate_of_another_name_is_not_trusted(make, authority, tls):
    """A certificate is for the names it holds, and the message does not repeat the name asked."""
    async with listen(OK, tls=tls) as wire:
        with pytest.raises(UpstreamConnectError, match="Hostname mismatch") as caught:
            await post(make(ca_file=authority[0]), secure(wire).replace("127.0.0.1", "localhost"))
    assert "localhost" not in caught.value.message


async def test_ssl_cert_file_is_honoured(make, authority, tls, monkeypatch, tmp_path):
    """SSL_CERT_FILE names the authorities; `ca_file` wins over it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    other = make_authority(tmp_path, "other")[0]
    async with listen(OK, tls=tls) as wire:
        assert (await post(make(), secure(wire))).status == 200
        with pytest.raises(UpstreamConnectError, match="certificate"):
            await post(make(ca_file=other), secure(wire))


async def test_plain_server_under_https_is_a_connect_error(make, authority):
    """A server that speaks no TLS is unreachable by https, and the message says why."""

    async def plain(_reader, writer):
        writer.write(OK.replace(b"200 OK", b"400 Bad Request"))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(UpstreamConnectError, match="WRONG_VERSION_NUMBER"):
        await post(make(ca_file=authority[0]), f"https://127.0.0.1:{port}/")
    server.close()


async def test_silent_handshake_is_bounded(make, authority):
    """A server that accepts and never shakes hands counts as not connected."""
    done = asyncio.Event()

    async def silent(_reader, writer):
        await done.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = make(ca_file=authority[0], connect_timeout=0.2)
    with pytest.raises(UpstreamTimeoutError) as caught:
        await post(transport, f"https://127.0.0.1:{port}/")
    done.set()
    server.close()
    await server.wait_closed()
    assert caught.value.code == "upstream_connect_timeout"


async def test_unix_socket_is_spoken_to_past_every_proxy(make, folder, monkeypatch):
    """With `uds` the URL's host is only a name, and no proxy of the environment is asked."""
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    heads = []

    async def serve(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        writer.close()

    server = await asyncio.start_unix_server(serve, folder / "engine.sock")
    transport = make(uds=str(folder / "engine.sock"))
    reply = await transport.send("GET", "http://engine/v1/models", {}, None, timeout=5)
    server.close()
    assert (reply.status, heads[0].split(b"\r\n")[0]) == (200, b"GET /v1/models HTTP/1.1")


async def test_missing_unix_socket_is_a_connect_error(make, folder):
    """An engine that is not there is unreachable."""
    with pytest.raises(UpstreamConnectError, match="no such file"):
        await post(make(uds=str(folder / "none.sock")), "http://engine/")


async def test_proxy_carries_plain_calls(make):
    """A plain call goes to the proxy whole, with the credentials of the proxy's address."""
    async with proxy() as wire:
        transport = make(proxy=f"http://user:pass@127.0.0.1:{wire.port}")
        assert (await post(transport, NOWHERE)).status == 200
        assert (await post(transport, NOWHERE)).status == 200
    for request in wire.requests:
        assert request.startswith(b"POST " + NOWHERE.encode() + b" HTTP/1.1\r\n")
        expected = b"proxy-authorization: basic " + b64encode(b"user:pass").lower()
        assert expected in request.lower().split(b"\r\n")


async def test_proxy_tunnels_secure_calls(make, authority, tls):
    """A secure call goes through a tunnel: the proxy sees the place, and no header or key."""
    async with proxy() as wire, listen(OK, tls=tls) as far:
        transport = make(proxy=f"http://user:pass@127.0.0.1:{wire.port}", ca_file=authority[0])
        for _ in range(2):
            assert (await post(transport, secure(far))).status == 200
    assert [request.split(b"\r\n")[0] for request in wire.requests] == [
        b"CONNECT 127.0.0.1:%d HTTP/1.1" % far.port
    ]
    assert b"sk-secret-key" not in wire.requests[0]
    assert b"proxy-authorization" in wire.requests[0].lower()
    assert b"proxy-authorization" not in far.requests[0].lower()


@pytest.mark.parametrize("far", ["plain", "secure"])
async def test_proxy_itself_may_be_secure(make, authority, tls, far):
    """An https:// proxy is trusted like an upstream; a secure call is TLS within TLS."""
    async with proxy(tls=tls) as wire, listen(OK, tls=tls) as upstream:
        transport = make(proxy=f"https://127.0.0.1:{wire.port}", ca_file=authority[0])
        url = NOWHERE if far == "plain" else secure(upstream)
        assert (await post(transport, url)).status == 200
    assert (wire.connections, upstream.connections) == (1, int(far == "secure"))


async def test_refusing_proxy_is_a_connect_error(make):
    """A proxy that opens no tunnel is told apart from an upstream that refuses."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with proxy(refusal=refusal) as wire:
        transport = make(proxy=f"http://user:pass@127.0.0.1:{wire.port}")
        with pytest.raises(UpstreamConnectError, match="the proxy refused to connect") as caught:
            await post(transport, "https://127.0.0.1:9/")
    assert "pass" not in caught.value.message


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_proxy_of_the_environment_is_used(make, monkeypatch, name):
    """The environment's proxy is asked, with or without http:// before it."""
    async with proxy() as wire:
        monkeypatch.setenv(name, f"127.0.0.1:{wire.port}")
        assert (await post(make(), NOWHERE)).status == 200


async def test_https_proxy_of_the_environment_is_used(make, monkeypatch, authority, tls):
    """HTTPS_PROXY is for secure calls, and for those only."""
    async with proxy() as wire, listen(OK, tls=tls) as far, listen(OK) as plain:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{wire.port}")
        transport = make(ca_file=authority[0])
        assert (await post(transport, secure(far))).status == 200
        assert (await post(transport, plain.url)).status == 200
    assert (wire.connections, plain.connections) == (1, 1)


@pytest.mark.parametrize("spared", ["127.0.0.1", "*", "example.org,127.0.0.1:{port}"])
async def test_no_proxy_spares_hosts(make, monkeypatch, spared):
    """NO_PROXY's hosts, with a port or without, are spoken to directly."""
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    async with listen(OK) as wire:
        monkeypatch.setenv("NO_PROXY", spared.format(port=wire.port))
        assert (await post(make(), wire.url)).status == 200


async def test_own_proxy_wins_over_the_environment(make, monkeypatch):
    """`proxy` overrides HTTP_PROXY and NO_PROXY; an empty one means directly."""
    monkeypatch.setenv("HTTP_PROXY", NOWHERE)
    async with proxy() as wire, listen(OK) as direct:
        assert (await post(make(proxy=""), direct.url)).status == 200
        monkeypatch.setenv("NO_PROXY", "*")
        address = f"http://127.0.0.1:{wire.port}"
        assert (await post(make(proxy=address), NOWHERE)).status == 200
    assert (wire.connections, direct.connections) == (1, 1)


async def test_environment_with_another_kind_of_proxy_is_an_error(make, monkeypatch):
    """Going round a proxy that we cannot speak to would be worse than failing."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pass@127.0.0.1:9")
    async with listen(OK) as wire:
        with pytest.raises(UpstreamConnectError, match="neither http:// nor https://") as caught:
            await post(make(), wire.url)
    assert wire.connections == 0
    assert "pass" not in caught.value.message


def test_unusable_settings_are_a_config_error(tmp_path):
    """All problems are told at once, before any call, without the proxy's password."""
    settings = TransportSettings(5, 1, 1, proxy="socks5://u:pass@h", ca_file=tmp_path / "none")
    with pytest.raises(ConfigError) as caught:
        open_transport(settings)
    assert [line.partition(":")[0] for line in caught.value.problems] == ["proxy", "ca_file"]
    assert "pass" not in str(caught.value) + repr(settings)


def test_aiohttp_is_used_where_it_is_installed():
    """The quicker client is picked without a running loop."""
    assert isinstance(open_transport(TransportSettings(5, 1, 1)), AiohttpTransport)


def test_httpx_is_used_where_aiohttp_is_missing():
    """Without aiohttp the other client is there, and nothing imports aiohttp."""
    code = """
import sys
sys.modules["aiohttp"] = None
from gateway.backends.transport import TransportSettings, open_transport
print(type(open_transport(TransportSettings(5, 1, 1))).__name__)
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "HttpxTransport"


def test_system_store_is_asked_where_openssl_has_none():
    """Where OpenSSL knows no certificates of its own, the operating system's are used."""
    nowhere = ssl.DefaultVerifyPaths(None, None, "SSL_CERT_FILE", "", "SSL_CERT_DIR", "")
    context = tls_context(None, nowhere)
    assert isinstance(context, truststore.SSLContext)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_unknown_name_is_told_by_its_kind():
    """A name that cannot be resolved is said to be that, however deep the library hid it."""
    error = RuntimeError("http://key@secret-host")
    error.__cause__ = ExceptionGroup("x", [socket.gaierror(-2, "secret-host")])
    message = "The upstream could not be reached: its name could not be resolved."
    assert broken(error).message == message
