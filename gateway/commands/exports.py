"""What an exported cache looks like: a safetensors file with six tensors for each scope.

    ID.vectors       F32 [n, width]   unit vectors
    ID.keys          U8  [n, 32]      ascending; what names them in a store, see cache.keys
    ID.created       F64 [n]          Unix seconds
    ID.tokens        I64 [n]
    ID.flags         U8  [n]          1: the tokens are estimated, 2: the text was cut
    ID.fingerprints  I32 [n]          places in the metadata's list

Whose they are stands in the metadata, as JSON. There are no texts in it, and nobody can find out
whether a text is among them who has not got the secret that the keys were made with.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway import __version__
from gateway.safetensors import SafetensorsError, SafetensorsFile

FORMAT = "embedding-gateway cache"
VERSION = "1"
"""Of the format; raised when a file means something else than it says here."""

COLUMNS: Mapping[str, str] = {
    "vectors": "F32",
    "keys": "U8",
    "created": "F64",
    "tokens": "I64",
    "flags": "U8",
    "fingerprints": "I32",
}
"""The type of each tensor."""
KEY_BYTES = 32
Scope = Annotated[str, Meta(pattern="^[0-9a-f]{24}$")]
ESTIMATED, TRUNCATED = 1, 2

_LONGEST_FINGERPRINT = 255


class Exported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file says of a scope."""

    tenant: str
    model: str
    generation: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    width: Annotated[int, Meta(ge=1, le=2**20)]


class Contents(msgspec.Struct, frozen=True):
    """What the metadata of a file says."""

    check: bytes
    """Of the secret that the keys were made with; see keys.check_value."""
    scopes: Mapping[str, Exported]
    """By id."""
    fingerprints: list[str]


def shape(column: str, rows: int, width: int) -> tuple[int, ...]:
    """Return the shape of a scope's tensor."""
    return (rows, *{"vectors": (width,), "keys": (KEY_BYTES,)}.get(column, ()))


def write_metadata(contents: Contents) -> dict[str, str]:
    """Return the metadata of a file. The time is not in it: equal stores make equal files."""
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "gateway": __version__,
        "check": contents.check.decode(),
        "scopes": msgspec.json.encode(contents.scopes, order="sorted").decode(),
        "fingerprints": msgspec.json.encode(contents.fingerprints).decode(),
    }


def read_metadata(file: SafetensorsFile) -> Contents:
    """Return what a file says of itself, and check that its tensors are what that means.

    Raises SafetensorsError for a broken file, one of another kind, or one of another version.
    """
    said = file.metadata
    if said.get("format") != FORMAT:
        raise SafetensorsError("it is a safetensors file, and not one of `gateway cache export`")
    if said.get("format_version") != VERSION:
        raise SafetensorsError(
            f"it has the format of gateway {said.get('gateway', '?')[:20]}, which this one cannot "
            "read; use that version, or a newer one"
        )
    try:
        contents = Contents(
            said["check"].encode("ascii"),
            msgspec.json.decode(said["scopes"], type=dict[Scope, Exported]),
            msgspec.json.decode(said["fingerprints"], type=list[str]),
        )
    except (KeyError, ValueError, RecursionError) as error:
        raise SafetensorsError("its metadata is damaged") from error
    if any(
        len(fingerprint.encode()) > _LONGEST_FINGERPRINT for fingerprint in contents.fingerprints
    ):
        raise SafetensorsError("it has a fingerprint that is too long")
    _check_tensors(file, contents)
    return contents


def _check_tensors(file: SafetensorsFile, contents: Contents) -> None:
    """Raise SafetensorsError unless each scope has its tensors, and nobody else has any."""
    expected: dict[str, Any] = {}
    for scope, about in contents.scopes.items():
        keys = file.tensors.get(f"{scope}.keys")
        rows = keys.shape[0] if keys is not None and keys.shape else 0
        for column, dtype in COLUMNS.items():
            expected[f"{scope}.{column}"] = (dtype, shape(column, rows, about.width))
    there = {name: (tensor.dtype, tensor.shape) for name, tensor in file.tensors.items()}
    if there != expected:
        names = [name for name in {**expected, **there} if expected.get(name) != there.get(name)]
        raise SafetensorsError(f"the tensor {min(names)[:100]!r} is not what its metadata says")
