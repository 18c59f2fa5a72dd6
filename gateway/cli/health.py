"""`gateway health`: what a container runs now and then, to know whether its gateway is ready.

It reads no config: a gateway goes on with the one it has, whatever has become of the file since.
"""

import ssl
from concurrent.futures import Future
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread
from urllib.parse import urlsplit

import click
import msgspec

from gateway.cli.shared import TEXT, fail, told
from gateway.commands.strangers import plain

_PATIENCE = 2.0
"""Seconds. Whoever asks has a limit of its own; docker's in deploy/Dockerfile is three."""
_LONGEST = 1024
"""Bytes of an answer that are read; a gateway's has some dozen."""


class _Said(msgspec.Struct):
    status: str


@click.command()
@click.option("--url", type=TEXT, default="http://127.0.0.1:8000", show_default=True,
    envvar="GATEWAY_HEALTH_URL", show_envvar=True,
    help="Its address, without /v1. With https any certificate will do.")  # fmt: skip
@click.option("--live", is_flag=True,
    help="Ask only whether it answers; it may be loading a model, or about to stop.")  # fmt: skip
def health(url: str, live: bool) -> None:
    """Ask a running gateway whether it is ready.

    Exit codes: 0 where it is, 1 where it is not or nobody answers.
    """
    path = "/health/live" if live else "/health/ready"
    asked = url + path
    try:
        code, body = _in_time(url, path)
        status = plain(msgspec.json.decode(body, type=_Said).status)
    except OSError as error:
        fail([f"{asked}: {told(error)}"])
    except (HTTPException, ValueError) as error:
        fail([f"{asked}: {plain(str(error))}"])
    if code != 200:
        fail([f"{asked}: {status}"])
    click.echo(status)


def _in_time(url: str, path: str) -> tuple[int, bytes]:
    """Return and raise what `_ask` does, or TimeoutError.

    A socket's patience begins anew with each byte, and a name is looked up without any.
    """
    answer: Future[tuple[int, bytes]] = Future()

    def ask() -> None:
        try:
            answer.set_result(_ask(url, path))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it is waited for
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(_PATIENCE)
    except TimeoutError:
        raise TimeoutError("timed out") from None


def _ask(url: str, path: str) -> tuple[int, bytes]:
    """Return status and body of an answer; no proxy is asked and no redirection followed.

    Raises OSError or HTTPException where there is none, ValueError for an address that is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ValueError('must be an address such as "http://127.0.0.1:8000"')
    connection: HTTPConnection
    if parts.scheme == "https":
        # The certificate is for the name that others call it by, not for this machine's loopback.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(parts.hostname, parts.port, timeout=_PATIENCE, context=context)
    else:
        connection = HTTPConnection(parts.hostname, parts.port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_LONGEST)
    finally:
        connection.close()
