"""A listener that is about to close: who has connected already is still to be accepted.

The system completes connections on its own, and resets those that wait when a listener is closed.
So it is made deaf first: who comes then tries again after a second, and is refused or finds the
next gateway.
"""

import ctypes
import socket
import sys

_SO_ATTACH_FILTER = 26
"""Of Linux; the same on all processors that Python runs on, but SPARC."""
_RETURN = 0x06
"""Of the classic Berkeley packet filter: how many bytes of a packet are kept."""


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def connect_no_more(listener: socket.socket) -> None:
    """Have the system drop all packets to a listener, where it can; its connections go on."""
    if not sys.platform.startswith("linux"):
        return
    nothing = _Instruction(_RETURN, 0, 0, 0)
    program = _Program(1, ctypes.pointer(nothing))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
    except OSError:
        return  # a sandbox that forbids it: then a few are reset
