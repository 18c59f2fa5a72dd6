"""Values that must not be seen: in a log, a traceback or a repr they are three stars.

They know nothing of the file they came from, but whether they stood in it as plain text.
"""

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from gateway.config.forms import Form, Surroundings, text
from gateway.config.problems import MisfitError, Reference, kind_of

MASK = "***"
IN_PLAIN_TEXT = "is written here in plain text; ${env:NAME} or ${file:PATH} keep it out of the file"


class Secret:
    """A text that only `reveal()` shows. No dataclass: an encoder must not know what is in it."""

    __slots__ = ("_text", "in_file")

    def __init__(self, text: str, *, in_file: bool = False) -> None:
        self._text = text
        self.in_file = in_file
        """Whether it was written into the config itself, not named by ${env:…} or ${file:…}."""

    def reveal(self) -> str:
        """Return the text, for the one place that has to send it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


class Digest:
    """The SHA-256 of a client's key: enough to know the key again, and all we keep of it."""

    __slots__ = ("in_file", "sha256")

    def __init__(self, sha256: bytes, *, in_file: bool = False) -> None:
        self.sha256 = sha256
        self.in_file = in_file
        """Whether the key itself was written into the config in plain text."""

    @classmethod
    def of(cls, key: str, *, in_file: bool = False) -> "Digest":
        """Return the digest of a key's UTF-8 bytes."""
        return cls(sha256(key.encode()).digest(), in_file=in_file)

    def matches(self, key: str) -> bool:
        """Return whether this is the digest of `key`, in a time that tells nothing about it."""
        # A client may send what is no text; it is compared like the rest.
        return hmac.compare_digest(self.sha256, sha256(key.encode(errors="surrogatepass")).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and hmac.compare_digest(self.sha256, other.sha256)

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


_SHORTEST_KEY = 8
_SHORTEST_SECRET = 16
_DIGEST = re.compile("sha256:(.*)", re.DOTALL)
"""Whatever begins so is meant to be one: as a key it would let nobody in but who guesses it."""
_HEXADECIMAL = re.compile("[0-9a-fA-F]*").fullmatch
_LOOKS_SECRET = re.compile(r"key|token|secret|auth|pass|credential|cookie|sig", re.IGNORECASE)


def is_key(text: str) -> bool:
    """Return whether this can be sent as a key: printable ASCII without spaces."""
    return all("!" <= char <= "~" for char in text)


def _secret(value: Any, what: str) -> Secret:
    return Secret(str(text(value, what)), in_file=not isinstance(value, Reference))


def _read_secret(value: Any, _: Surroundings) -> Secret:
    secret = _secret(value, "a key")
    if not is_key(secret.reveal()):
        raise MisfitError("must be a key, and has a space, a line end or a non-ASCII letter in it")
    return secret


def _read_long_secret(value: Any, around: Surroundings) -> Secret:
    secret = _read_secret(value, around)
    if len(secret.reveal()) < _SHORTEST_SECRET:
        raise MisfitError(f"must have at least {_SHORTEST_SECRET} characters")
    return secret


def _read_digest(value: Any, _: Surroundings) -> Digest:
    key = str(text(value, "a key"))
    if match := _DIGEST.fullmatch(key):
        if len(match[1]) != 64:
            raise MisfitError(f"must have 64 hexadecimal digits after sha256:, not {len(match[1])}")
        if not _HEXADECIMAL(match[1]):
            raise MisfitError("must have 64 hexadecimal digits after sha256:, and nothing else")
        return Digest(bytes.fromhex(match[1]))
    if len(key) < _SHORTEST_KEY:
        raise MisfitError(f"must have at least {_SHORTEST_KEY} characters")
    if key != key.strip() or not key.isprintable():
        raise MisfitError(
            "has a space at an end, or a line end or the like in it: no client could send that"
        )
    return Digest.of(key, in_file=not isinstance(value, Reference))


def _read_secret_table(value: Any, _: Surroundings) -> dict[str, Secret]:
    if not isinstance(value, dict):
        raise MisfitError(f'must be a table such as {{ name = "value" }}, not {kind_of(value)}')
    table = {}
    for name, item in value.items():
        if not isinstance(item, str):
            raise MisfitError(f"must be text in quotes, not {kind_of(item)}", name)
        table[name] = Secret(str(item), in_file=not isinstance(item, Reference))
    return table


def _write_secret_table(table: Mapping[str, Secret]) -> dict[str, str]:
    return {
        name: item.reveal() if item.in_file and not _LOOKS_SECRET.search(name) else MASK
        for name, item in table.items()
    }


SECRET = Form(_read_secret, {"type": "string", "minLength": 1}, lambda _: MASK)
LONG_SECRET = Form(
    _read_long_secret,
    # A reference may be shorter than what it stands for.
    {"type": "string", "pattern": rf"^.{{{_SHORTEST_SECRET},}}$|\$\{{"},
    lambda _: MASK,
)
DIGEST = Form(_read_digest, {"type": "string", "minLength": _SHORTEST_KEY}, lambda _: MASK)
SECRET_TABLE = Form(
    _read_secret_table,
    {"type": "object", "additionalProperties": {"type": "string"}},
    _write_secret_table,
)
