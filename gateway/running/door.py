"""Where requests come in: each is answered by the config that is current when it begins."""

import asyncio
from collections.abc import Callable
from operator import attrgetter

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.app import Gateway

_LOOKS = 0.05
"""Seconds between two looks at a gateway whose last request has ended, and whose flights have
not."""


class Entrance:
    """One listener's application, for as long as the process runs."""

    __slots__ = ("_app", "_door")

    def __init__(self, door: "Door", app: Callable[[Gateway], ASGIApp]) -> None:
        """`app` chooses which of a gateway's applications this is for."""
        self._door = door
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and know that it runs."""
        gateway = self._door.current
        gateway.running += 1
        try:
            await self._app(gateway)(scope, receive, send)
        finally:
            gateway.running -= 1


class Door:
    """The gateway of the current config, and those of earlier ones that still answer requests."""

    def __init__(
        self, gateway: Gateway, on_closed: Callable[[Gateway], None] = lambda _: None
    ) -> None:
        """`on_closed` is told when an earlier gateway has answered its last request."""
        self.current = gateway
        self.public = Entrance(self, attrgetter("app"))
        self.admin = None if gateway.admin is None else Entrance(self, attrgetter("admin"))
        self._on_closed = on_closed
        self._leaving: dict[Gateway, asyncio.Task[None]] = {}

    @property
    def gateways(self) -> list[Gateway]:
        """The current one, and those that still answer requests."""
        return [self.current, *self._leaving]

    @property
    def running(self) -> int:
        """Requests that are being answered now."""
        return sum(gateway.running for gateway in self.gateways)

    async def change(self, gateway: Gateway) -> None:
        """Have every request from now on answered by `gateway`; see the one before it out."""
        await gateway.start()
        before, self.current = self.current, gateway
        before.step_down()
        self._leaving[before] = asyncio.create_task(self._see_out(before))

    async def aclose(self) -> None:
        """Close all gateways; after the last request."""
        await asyncio.gather(*self._leaving.values())
        await self.current.aclose()

    async def _see_out(self, gateway: Gateway) -> None:
        # Looked at now and then: that a request ends is told to nobody, which would cost each.
        while gateway.busy:  # noqa: ASYNC110
            await asyncio.sleep(_LOOKS)
        del self._leaving[gateway]
        await gateway.aclose(self.gateways)
        self._on_closed(gateway)
