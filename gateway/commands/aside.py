"""Work that blocks, beside an event loop: reading what a pipe brings, writing what one takes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T]) -> T:
    """Return what the work returns, or raise what it raises, which is no StopIteration.

    Unlike asyncio's threads, this one is not waited for at the end: a reader that hangs on a
    terminal or a full pipe does not keep the process from being stopped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - the border of a thread
            error = raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, result, error)

    Thread(target=run, name="aside", daemon=True).start()
    return await future
