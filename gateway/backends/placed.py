"""An open answer that has a place at its upstream until it is over."""

from collections.abc import Callable
from typing import Self

from gateway.backends.exchange import Opened
from gateway.errors import UpstreamError


class PlacedAnswer:
    """Gives its place back when it is read to its end, broken, or closed; tells if it broke."""

    __slots__ = ("_answer", "_leave", "_on_broken", "_pieces", "headers", "status")

    def __init__(
        self, answer: Opened, leave: Callable[[], None], on_broken: Callable[[UpstreamError], None]
    ) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._pieces = aiter(answer)
        self._leave: Callable[[], None] | None = leave
        self._on_broken = on_broken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except BaseException as error:
            self._over(error)
            raise

    async def read(self) -> bytes:
        """See Opened.read."""
        try:
            body = await self._answer.read()
        except BaseException as error:
            self._over(error)
            raise
        self._over()
        return body

    async def aclose(self) -> None:
        """See Opened.aclose."""
        try:
            await self._answer.aclose()
        finally:
            self._over()

    def _over(self, error: BaseException | None = None) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
            if isinstance(error, UpstreamError):
                self._on_broken(error)
