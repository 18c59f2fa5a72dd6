"""What a right answer is: so many vectors of a width, of length one, in either form."""

import base64
import json
from collections.abc import Callable

import numpy as np

from benchmarks.load import LoadError, Outcome


def expect(
    count: int, width: int, *, unit: bool = True, tokens: int | None = None
) -> Callable[[Outcome], None]:
    """Return a check that raises LoadError; `tokens` is the usage of the whole answer.

    `unit=False` is for a server that does not normalize.
    """

    def check(outcome: Outcome) -> None:
        answer = json.loads(outcome.body)
        vectors = [_vector(item["embedding"]) for item in answer["data"]]
        if [len(vector) for vector in vectors] != [width] * count:
            raise LoadError(f"not {count} vectors of {width}")
        if unit and max(abs(np.linalg.norm(vector) - 1) for vector in vectors) > 1e-3:
            raise LoadError("a vector is not of length 1")
        if tokens is not None and answer["usage"]["prompt_tokens"] != tokens:
            raise LoadError(f"{answer['usage']['prompt_tokens']} tokens where {tokens} were sent")

    return check


def _vector(embedding: str | list[float]) -> "np.typing.NDArray[np.float64]":
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4").astype(np.float64)
    return np.array(embedding)
