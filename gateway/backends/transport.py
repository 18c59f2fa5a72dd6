"""The seam between backends and the network: `Transport`, and the one place that picks a client.

Backends see nothing below this module. aiohttp is the quicker client and used when it is
installed (extra `fast`), httpx2 always there; both keep one contract and pass one suite.
"""

from importlib.util import find_spec

from gateway.backends.exchange import Opened, Reply, Transport
from gateway.backends.reach import TransportSettings

__all__ = ["Opened", "Reply", "Transport", "TransportSettings", "open_transport"]


def open_transport(settings: TransportSettings) -> Transport:
    """Return a transport for one upstream; connections are opened when they are needed.

    Needs no running loop. Raises ConfigError for a proxy or CA file that cannot be used.
    """
    settings.check()
    if find_spec("aiohttp") is not None:
        from gateway.backends.aiohttp_transport import AiohttpTransport

        return AiohttpTransport(settings)
    from gateway.backends.httpx_transport import HttpxTransport

    return HttpxTransport(settings)
