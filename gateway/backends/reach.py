"""The way to an upstream: its address, the proxy before it, and whose certificates are trusted.

The environment's proxies and certificates are read here, the same for every client. It opens no
socket, and knows nothing of requests and answers.
"""

import re
import ssl
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import truststore

from gateway.backends.exchange import INVALID, unreachable
from gateway.errors import ConfigError

KEEPALIVE = 30.0
"""Seconds an idle connection is kept: below the 60 s after which common load balancers hang up."""

_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How to reach one upstream."""

    connect_timeout: float
    """Seconds for one connection, TLS handshake included."""
    pool: int
    """Connections at a time, at most; further calls wait for one."""
    max_answer: int
    """Bytes of a decoded body, at most."""
    proxy: str | None = field(default=None, repr=False)
    """http:// or https:// address; None asks HTTPS_PROXY and NO_PROXY, "" means directly."""
    ca_file: Path | None = None
    """PEM file with the only authorities to trust; None means SSL_CERT_FILE or the system's."""
    uds: str | None = None
    """Path of a Unix socket that is connected to whatever host the URL names."""

    def check(self) -> None:
        """Raise ConfigError for a proxy or a CA file that cannot be used."""
        problems = []
        if self.proxy and not _is_proxy(self.proxy):
            problems.append("proxy: only http:// and https:// proxies are supported")
        if self.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except OSError as error:  # ssl.SSLError is one
                problems.append(f"ca_file: cannot read certificates from {self.ca_file}: {error}")
        if problems:
            raise ConfigError(problems)


def bare(address: str) -> str:
    """Return a URL without the user and password in it.

    Raises UpstreamConnectError for one that is not absolute, not http(s) or not percent-encoded.
    """
    try:
        parts = urlsplit(address)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        valid = named and _VISIBLE.fullmatch(address)
    except ValueError:
        valid = False
    if not valid:
        raise unreachable(INVALID)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def proxy_for(url: str, settings: TransportSettings) -> str | None:
    """Return the proxy to use for a bare URL, None for none.

    Raises UpstreamConnectError where the environment names one of a kind we do not speak.
    """
    if settings.uds is not None:
        return None
    if settings.proxy is not None:
        return settings.proxy or None
    parts = urlsplit(url)
    named = urllib.request.getproxies_environment()
    proxy = named.get(parts.scheme) or named.get("all")
    # typeshed does not know this half of the pair.
    spared = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    if not proxy or spared(parts.netloc, named):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not _is_proxy(proxy):
        raise unreachable("the environment names a proxy that is neither http:// nor https://")
    return proxy


def tls_context(ca_file: Path | None, paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """Return a context that trusts `ca_file` alone, else SSL_CERT_FILE, else the system.

    `paths` says where OpenSSL looks (it reads the environment variables); where that is nowhere,
    as in python.org's build for macOS, the operating system's own store is asked.
    """
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    if paths.cafile or paths.capath:
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _is_proxy(address: str) -> bool:
    return urlsplit(address).scheme in ("http", "https")
