"""Raw sockets for transport tests: servers that say exactly these bytes, a proxy, a small CA."""

import asyncio
import shutil
import struct
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import pytest

CAP = 100_000
"""Bytes of an answer that the transports under test read, at most."""

HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-secret-key"}

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Wire:
    """A listening server, and what it has seen."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """A request is there."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client has closed a connection."""

    @property
    def url(self):
        """The address, with a path."""
        return f"http://127.0.0.1:{self.port}/v1/embeddings"


@dataclass
class Call:
    """One request on its connection."""

    wire: Wire
    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data):
        """Write and flush."""
        self.writer.write(data)
        await self.writer.drain()

    def hang_up(self, *, reset=False):
        """Close the connection, with a RST if asked."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            self.writer.transport.abort()
        self.writer.close()


@asynccontextmanager
async def listen(answer, *, tls=None):
    """Serve on a free port: `answer` is the bytes to say to every request, or `await`ed with it."""
    wire = Wire()
    talks = set()

    async def talk(reader, writer):
        wire.connections += 1
        talks.add(asyncio.current_task())
        try:
            while request := await _read_request(reader):
                wire.requests.append(request)
                wire.arrived.set()
                call = Call(wire, request, reader, writer)
                await (call.say(answer) if isinstance(answer, bytes) else answer(call))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client or the test has gone.
        finally:
            wire.left.set()
            # Over TLS a polite close would wait for the other side, which may keep the connection.
            writer.transport.abort() if tls else writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for talking in talks:
            talking.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def post(transport, url, body=b"{}", timeout=10.0):
    """Send one request through a transport."""
    return await transport.send("POST", url, HEADERS, body, timeout=timeout)


async def opening(transport, url, body=b"{}", timeout=10.0, silence=10.0):
    """Open an answer through a transport."""
    return await transport.open("POST", url, HEADERS, body, timeout=timeout, silence=silence)


BEGUN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data):
    """Return the bytes of one chunk of a body begun with BEGUN; an empty one ends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(body, *headers):
    """Return the bytes of a 200 with these header lines."""
    head = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def proxy(*, refusal=b"", tls=None):
    """Serve a proxy: CONNECT makes a tunnel to a loopback port, the rest is answered with OK."""

    async def serve(call):
        if not call.request.startswith(b"CONNECT "):
            await call.say(OK)
        elif refusal:
            await call.say(refusal)
        else:
            await _tunnel(call)

    return listen(serve, tls=tls)


async def _tunnel(call):
    port = int(call.request.split()[1].rpartition(b":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await call.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
    back = asyncio.ensure_future(_pump(reader, call.writer))
    try:
        await _pump(call.reader, writer)
    finally:
        writer.close()
        back.cancel()
        await asyncio.gather(back, return_exceptions=True)


async def _pump(reader, writer):
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _read_request(reader):
    """Return the next request's bytes, b"" at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


def make_authority(folder: Path, name: str = "ca") -> tuple[Path, Path, Path]:
    """Make a CA and a certificate for 127.0.0.1 under it: (CA, certificate, key), PEM files."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no `openssl` command to make certificates with")
    ca, ca_key, cert, key, csr, ext = (
        folder / f"{name}{end}" for end in (".pem", ".key", "-c.pem", "-c.key", ".csr", ".ext")
    )
    ext.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new = ["-newkey", "rsa:2048", "-nodes"]
    sign = ["-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial", "-extfile", str(ext)]
    for command in (
        ["req", "-x509", *new, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", f"/CN={name}"],
        ["req", *new, "-keyout", key, "-out", csr, "-subj", "/CN=upstream"],
        ["x509", "-req", "-in", csr, *sign, "-out", cert, "-days", "2"],
    ):
        subprocess.run([openssl, *map(str, command)], check=True, capture_output=True)
    return ca, cert, key
