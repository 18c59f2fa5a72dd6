"""What is on the disk where a config says there is a file: the one place where rules look.

Each function returns why a file will not do, or None.
"""

import errno
import json
import ssl
import stat
from pathlib import Path
from typing import BinaryIO

from gateway.config.problems import quote


def opened(path: Path) -> BinaryIO:
    """Open a file; raise OSError where there is none, or a pipe: its reading might never end."""
    if stat.S_ISFIFO(path.stat().st_mode):
        raise OSError(errno.ESPIPE, "it is a pipe")
    return path.open("rb")


def unreadable(path: Path) -> str | None:
    """Return why this file cannot be read."""
    try:
        with opened(path):
            return None
    except OSError as error:
        return f"{_whole(path)} cannot be read: {error.strerror}"


def no_gguf(path: Path) -> str | None:
    """Return why this is not the GGUF file it should be."""
    try:
        with opened(path) as file:
            magic = file.read(4)
    except OSError as error:
        beside = [found.name for found in path.parent.glob("*.gguf")][:3]
        hint = f"; beside it there is {', '.join(map(quote, sorted(beside)))}" if beside else ""
        return f"{_whole(path)} cannot be read: {error.strerror}{hint}"
    if magic != b"GGUF":
        return f"{_whole(path)} is not a GGUF file: it does not begin with GGUF"
    return None


def no_authorities(path: Path) -> str | None:
    """Return why these are not the certificates that they should be."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return f"{_whole(path)} holds no certificates in PEM"
    except OSError as error:
        return f"{_whole(path)} cannot be read: {error.strerror}"
    return None


def no_template(path: Path) -> str | None:
    """Return why this is not the template that it should be."""
    if reason := unreadable(path):
        return reason
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError as error:
        return f"{_whole(path)} is not UTF-8 (byte {error.start})"
    return None


def no_database(path: Path) -> str | None:
    """Return why no SQLite file can be here, as far as can be seen without making one."""
    try:
        is_directory = path.is_dir()
    except OSError:
        # Whoever opens it will say so; it may be another user, who can.
        return None
    return f"{_whole(path)} is a directory; name a file in it" if is_directory else None


def _whole(path: Path) -> str:
    # Longer than other echoes: of a path, the end is what one looks for.
    return json.dumps(str(path), ensure_ascii=False)
