"""The arithmetic of vectors: unit length, shortening, and the two forms they travel in.

A stored vector is `bytes`: the full-width unit vector as little-endian float32. Everything else,
fewer dimensions, base64 and float text, is derived from it. Nothing here knows of HTTP or caches.
"""

from collections.abc import Sequence
from math import inf, sqrt
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
from pybase64 import b64encode

from gateway.types import Row

Unit = npt.NDArray[np.float32]
"""A vector of L2 norm 1: shape (width,), float32."""

try:
    import orjson
except ImportError:  # the extra [fast] has it
    orjson = None  # type: ignore[assignment]

_FLOAT32_LE = np.dtype("<f4")
_encode = msgspec.json.Encoder().encode


class InvalidVectorError(ValueError):
    """A vector that must not leave, and why."""

    def __init__(self, reason: Literal["zero", "not_finite"]) -> None:
        super().__init__(reason)
        self.reason = reason


def unit(row: Row) -> Unit:
    """Scale a row to an L2 norm of 1: summed in float64, returned as float32.

    One row at a time, so that the bits of a vector cannot depend on the batch it came in.
    Raises InvalidVectorError for NaN, infinities and a norm of zero; a float64 sum of squares of
    float32 values can neither overflow nor vanish.
    """
    exact = row.astype(np.float64)
    square = float(exact.dot(exact))
    if 0.0 < square < inf:
        return (exact / sqrt(square)).astype(_FLOAT32_LE)
    raise InvalidVectorError("zero" if square == 0.0 else "not_finite")


def is_direction(row: Row) -> bool:
    """Whether a row can be scaled to unit length: it is finite, and not all zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        # In float32 it is quick, and in doubt where it overflows or vanishes.
        if 0.0 < float(row.dot(row)) < inf:
            return True
    return bool(np.isfinite(row).all() and row.any())


def norms(rows: Sequence[Row]) -> list[float]:
    """Return the L2 norm of each row, to six digits."""
    with np.errstate(over="ignore", invalid="ignore"):
        # In float32 it is quick, and in doubt where it overflows or vanishes.
        squares = [float(row.dot(row)) for row in rows]
    return [
        sqrt(square) if 0.0 < square < inf else float(np.linalg.norm(row.astype(np.float64)))
        for square, row in zip(squares, rows, strict=True)
    ]


def cosine(one: bytes, other: bytes) -> float:
    """Return the cosine between two unit vectors of one width, stored as bytes."""
    first, second = (np.frombuffer(each, _FLOAT32_LE).astype(np.float64) for each in (one, other))
    return float(first.dot(second))


def shorten(vector: bytes, dimensions: int) -> bytes:
    """Return the first `dimensions` components, scaled to unit length again.

    Slice, then renormalize: what OpenAI documents for its `dimensions` parameter.
    Raises InvalidVectorError where all the kept components are zero.
    """
    full = np.frombuffer(vector, dtype=_FLOAT32_LE)
    if dimensions == len(full):
        return vector
    return unit(full[:dimensions]).tobytes()


def to_base64(vector: bytes) -> bytes:
    """Return the JSON string of OpenAI's base64 form: little-endian float32."""
    return b'"%b"' % b64encode(vector)


def to_floats(vector: bytes) -> bytes:
    """Return the JSON array whose numbers are the float32 components exactly.

    Each is written as the shortest text of the equal float64, so that a client that reads doubles
    gets the very float32 that the base64 form holds.
    """
    exact = np.frombuffer(vector, dtype=_FLOAT32_LE).astype(np.float64)
    if orjson is not None:
        # No list of Python's numbers in between: less than half the time. It is copied, as orjson
        # leaves up to as much room again behind what it wrote, and this is going to be kept.
        return bytes(memoryview(orjson.dumps(exact, option=orjson.OPT_SERIALIZE_NUMPY)))
    return _encode(exact.tolist())
