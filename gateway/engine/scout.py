"""Tries something that may abort the process in a child first.

llama.cpp meets a file or a processor it cannot use with an assert or an illegal instruction, which
nothing can catch. A forked child dies in our place, and the answer becomes a sentence. Knows
processes and signals; not what is tried.
"""

import os
import signal
import sys
from collections.abc import Callable


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
