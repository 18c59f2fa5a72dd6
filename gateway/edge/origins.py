"""Whom a request names, and which web page it came from: what browsers can be made to do.

A page of any site can have its visitor's browser post to a gateway on the visitor's own machine or
network. Reading the answer is what CORS forbids it; the money is spent all the same, where no key
is asked for. And a site may let its own name point to the gateway's address (DNS rebinding): then
the browser takes the two for one, and the page may read as well. So without keys a page is heard
only if it is listed, or came from an address that no site can make its own. Programs, which are no
pages, send no Origin.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import Scope

from gateway.errors import MisdirectedError, PermissionDeniedError

Headers = Sequence[tuple[bytes, bytes]]

_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}
_REMEMBER = b"600"
"""Seconds that a browser need not ask again."""


class Origins:
    """The `hosts` and `origins` of a config, and whether whoever reaches the gateway may call."""

    def __init__(
        self, hosts: Sequence[str] = (), origins: Sequence[str] = (), *, keyless: bool = False
    ) -> None:
        self.closed = bool(hosts)
        """Whether a name has to be listed in any case."""
        self._hosts = frozenset(host.encode() for host in hosts if not host.startswith("*."))
        self._domains = tuple(host[1:].encode() for host in hosts if host.startswith("*."))
        self._origins = frozenset(origin.encode() for origin in origins)
        self._keyless = keyless

    def admit(self, host: bytes | None, origin: bytes | None) -> Headers:
        """Return the headers with which the answer lets a listed page read it; none for others.

        Raises MisdirectedError for a host that is not ours, PermissionDeniedError for a page that
        may not call.
        """
        name = _name(host or b"")
        if self.closed and not (_is_address(name) or self._listed(name)):
            raise MisdirectedError(
                "This gateway does not answer to the host of your request. Its config lists the "
                "names that it does: [server] hosts."
            )
        if origin is None:
            return ()
        if b"*" in self._origins:
            return _allowed(b"*")
        if origin.lower() in self._origins:
            return _allowed(origin)
        if self._keyless:
            self._check_page(origin, host or b"", name)
        return ()

    def _check_page(self, origin: bytes, host: bytes, name: bytes) -> None:
        if not _same(origin, host):
            raise PermissionDeniedError(
                "A web page of another origin may not call this gateway, which asks for no key. "
                "If it should, list the page's origin in the config: [server] origins.",
                code="origin_not_allowed",
                reason="origin",
            )
        if not (_is_address(name) or _is_local(name) or self._listed(name)):
            raise PermissionDeniedError(
                "A web page may call this gateway, which asks for no key, only by an address, or "
                "by a host name that is listed in the config: [server] hosts.",
                code="host_not_allowed",
                reason="origin",
            )

    def _listed(self, name: bytes) -> bool:
        return name in self._hosts or name.endswith(self._domains)


def preflight(scope: Scope) -> Headers | None:
    """Return what a browser wants to know before a listed page's request; None for any other."""
    if scope["method"] != "OPTIONS":
        return None
    asked = dict(scope["headers"])
    if b"access-control-request-method" not in asked:
        return None
    headers = [
        (b"access-control-allow-methods", b"GET, HEAD, POST"),
        (b"access-control-max-age", _REMEMBER),
    ]
    # Whatever it wants to send: what we do not know, we do not read.
    wanted = asked.get(b"access-control-request-headers", b"")
    if _NAMES.fullmatch(wanted):
        headers.append((b"access-control-allow-headers", wanted))
    if asked.get(b"access-control-request-private-network") == b"true":
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers


def _allowed(origin: bytes) -> Headers:
    # Keys come in a header of the page's own, never as cookies; so "*" may stand for all headers.
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    )


def _same(origin: bytes, host: bytes) -> bool:
    """Whether a page came from this very host; in front of which TLS may end."""
    scheme, _, authority = origin.lower().partition(b"://")
    port = _DEFAULT_PORTS.get(scheme, b":")
    return bool(authority) and authority.removesuffix(port) == host.lower().removesuffix(port)


def _name(host: bytes) -> bytes:
    """Return a Host header's value without its port, in lower case."""
    name, colon, port = host.lower().rpartition(b":")
    return (name if colon and port.isdigit() else host.lower()).strip(b"[]").rstrip(b".")


def _is_local(name: bytes) -> bool:
    return name == b"localhost" or name.endswith(b".localhost")


def _is_address(name: bytes) -> bool:
    try:
        ipaddress.ip_address(name.decode("ascii"))
    except ValueError:
        return False
    return True
