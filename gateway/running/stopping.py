"""When a process is to end: what signals mean to it."""

import asyncio
import os
import signal
from collections.abc import Callable

_SAME_SIGNAL = 0.3
"""Seconds within which a second signal is the first one again: a terminal and `timeout` send theirs
to every process of a group, and whoever passes signals on adds another."""


class Stopping:
    """Whether this process is to end."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.at_once = False
        """Whether new requests are refused from that moment, not only after the drain delay."""

    def ask(self, *, at_once: bool = False) -> None:
        """Have it end."""
        self.at_once = at_once
        self._asked.set()

    def is_set(self) -> bool:
        """Return whether it was asked for."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Return when it is asked for."""
        await self._asked.wait()


def heed_signals(
    stopping: Stopping,
    *,
    at_second: Callable[[], None] = lambda: None,
    at_hangup: Callable[[], None] | None = None,
) -> None:
    """Stop at SIGTERM, and at SIGINT without a delay; a second one ends the process at once.

    `at_second` is called before that. SIGHUP stops too, but where `at_hangup` says what else it is
    for; then it does so only where the terminal that the process was started from is gone.
    """
    loop = asyncio.get_running_loop()
    first = 0.0

    def stop(number: signal.Signals) -> None:
        nonlocal first
        if not stopping.is_set():
            first = loop.time()
            stopping.ask(at_once=number == signal.SIGINT)
        elif loop.time() - first > _SAME_SIGNAL:
            # Asked twice: whatever still runs is not waited for. Engines end with us.
            at_second()
            os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    # Under nohup SIGHUP is ignored, and a terminal that goes away means nothing.
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    bound = has_terminal() and not ignored

    def hang_up() -> None:
        if at_hangup is None or (bound and not has_terminal()):
            stop(signal.SIGHUP)
        else:
            at_hangup()

    if at_hangup is not None or not ignored:
        loop.add_signal_handler(signal.SIGHUP, hang_up)


def has_terminal() -> bool:
    """Return whether this process has a terminal that could go away."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
