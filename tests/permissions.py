"""Root for whom permissions hold, as they hold for everybody else."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@contextmanager
def permissions_hold() -> Iterator[None]:
    """Let files that may not be read or written be so, for this thread and those it starts."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", _VERSION, 0)
    data = ctypes.create_string_buffer(24)
    _check(libc.capget(header, data))
    effective, *others = struct.unpack("6I", data.raw)
    _check(libc.capset(header, struct.pack("6I", effective & ~_OVERRIDES, *others)))
    try:
        yield
    finally:
        _check(libc.capset(header, data))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
