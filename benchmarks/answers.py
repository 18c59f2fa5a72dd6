"""What a right answer is: vectors of a width and of length one, or a chat that is all there."""

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


def expect_chat(*, stream: bool, tokens: int | None = None) -> Callable[[Outcome], None]:
    """Return a check that raises LoadError; `tokens` is what the answer says that it has."""

    def check(outcome: Outcome) -> None:
        told: dict[str, int] | None
        if stream:
            *events, done, nothing = outcome.body.split(b"\n\n")
            if (done, nothing) != (b"data: [DONE]", b""):
                raise LoadError("a stream that is not whole")
            told = json.loads(events[-1].removeprefix(b"data: ")).get("usage")
        else:
            answer = json.loads(outcome.body)
            if not answer["choices"][0]["message"]["content"]:
                raise LoadError("an answer without words")
            told = answer["usage"]
        if tokens is not None and (told or {}).get("completion_tokens") != tokens:
            raise LoadError(f"an answer of another length than {tokens} tokens: {told}")

    return check


def _vector(embedding: str | list[float]) -> "np.typing.NDArray[np.float64]":
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4").astype(np.float64)
    return np.array(embedding)
