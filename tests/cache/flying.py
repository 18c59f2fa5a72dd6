"""Calls that a test answers, for tests of flights."""

import asyncio


class Call:
    """An upstream call, or a look into the stores, that ends when the test says so."""

    def __init__(self):
        self.answer = asyncio.get_running_loop().create_future()
        self.begun = self.cancelled = False

    async def __call__(self):
        self.begun = True
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class FaultError(Exception):
    """A failure of an upstream."""


async def settle():
    """Let everything that can run, run."""
    for _ in range(8):
        await asyncio.sleep(0)


async def nothing_else(_):
    """Plan no calls, whatever was found."""
    return []
