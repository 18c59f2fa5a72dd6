"""Tries a model in a child first: loading it may abort the process.

llama.cpp meets a file or a processor it cannot use with an assert or an illegal instruction, which
nothing can catch. A forked child dies in our place, and the answer becomes a sentence. Knows
processes and signals; not what is tried.
"""

import os
import signal
import sys
from collections.abc import Callable

from gateway.engine.faults import RefusedError, ResourcesError
from gateway.engine.log import Log

_KILLED = -9


def must_stay_plain(
    attempt: Callable[[bool], int], work: str, log: Log, after_fork: Callable[[], None]
) -> bool:
    """Return whether the weights must stay plain; raises RefusedError where all attempts die.

    `attempt` loads the model, with plain weights or not, and does its first `work` ("embeds a first
    text"); it returns an exit code. A refusal in the child is left to be met again by the caller,
    who explains it.
    """
    died = killed = 0
    plain = False
    while (code := survives(lambda: attempt(plain), after_fork)) < 0:  # noqa: B023 - called at once
        if code == _KILLED:
            # Once may be somebody with a kill command; the kernel would do it again.
            killed += 1
            if killed > 1:
                raise ResourcesError("the model is killed while it loads: out of memory?")
        elif plain:
            raise RefusedError(
                f"llama.cpp dies of {signal_name(code)} when it loads the file or {work}: the file"
                " is broken, or llama.cpp was built for another processor"
            )
        else:
            died, plain = code, True
    if plain:
        log.write(
            "warning",
            "plain_weights",
            message=f"llama.cpp dies of {signal_name(died)} with weights repacked for this"
            " processor, so they are used as they are in the file",
        )
    return plain


def survives(attempt: Callable[[], int], prepare: Callable[[], None]) -> int:
    """Run `prepare`, then `attempt`, in a child; return its code, or minus the signal it died of.

    To be called before the process has other threads. Where forking is not safe (macOS, whose
    frameworks do not allow it) nothing is tried, and the answer is 0.
    """
    if sys.platform != "linux":
        return 0
    child = os.fork()
    if child == 0:
        code = os.EX_SOFTWARE
        try:
            prepare()
            code = attempt()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def signal_name(code: int) -> str:
    """Return the name of the signal in a negative exit code."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
