"""What kinds of server there are: how each checks, shapes and words things.

From reading and running the servers in 2026. Each is data; `FakeOpenAI` does the work.
"""

import base64 as b64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OPENAI_FIELDS = frozenset({"input", "model", "encoding_format", "dimensions", "user"})

INVALID_INPUT = (
    "'$.input' is invalid. Please check the API reference: "
    "https://platform.openai.com/docs/api-reference."
)


def limit_headers(number: int) -> dict[str, str]:
    """Return the headers of the answer to the request of this number."""
    return {
        "content-type": "application/json",
        "x-request-id": f"req_{number:032x}",
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "3000",
        "x-ratelimit-remaining-requests": str(max(0, 3000 - number)),
        "x-ratelimit-reset-requests": "20ms",
        "x-ratelimit-limit-tokens": "1000000",
        "x-ratelimit-remaining-tokens": "999000",
        "x-ratelimit-reset-tokens": "60ms",
    }


class RefusalError(Exception):
    """An error answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Flavour:
    """One kind of server. The defaults are OpenAI's."""

    strict: bool = True
    """Whether unknown body fields are refused."""
    base64: bool = True
    """Whether `encoding_format` is honoured; else floats, whatever was asked."""
    unit: bool = False
    """Whether vectors are normalized, after `dimensions` too."""
    dimensions: str = "slice"
    """"slice", "ignore", "full" (slice, or everything if too many), or "refuse"."""
    ids: bool = True
    """Whether arrays of token ids are understood."""
    empty_text: bool = False
    max_batch: int | None = 2048
    refused: int = 400
    """The status of a refused request."""
    error: str = "openai"
    """"openai", "flat", "int_code" or "text": the shape of an error body."""
    ids_message: str = INVALID_INPUT
    any_model: bool = False
    model: str | None = None
    """The name in every answer; None: the name that was asked for."""
    usage: bool = True
    """Whether tokens are counted; else zeros."""
    item_keys: Mapping[str, Any] = field(default_factory=dict)
    """Keys of each item, beyond OpenAI's, when base64 was asked for."""
    answer_keys: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def refusal(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: Any = None
    ) -> RefusalError:
        """Return an error in this server's shape."""
        bodies: dict[str, Any] = {
            "openai": {
                "error": {"message": message, "type": kind, "param": None, "code": code},
            },
            "int_code": {"error": {"code": status, "message": message, "type": kind}},
            "flat": {"message": message, "code": status, "type": "validation"},
            "text": {"error": message},
        }
        return RefusalError(status, json.dumps(bodies[self.error]).encode())

    def unauthorized(self, sent: str) -> RefusalError:
        """Return the answer to a wrong key; OpenAI's shows parts of it."""
        if self.error == "flat":
            return RefusalError(401, b"")
        key = sent.removeprefix("Bearer ")
        shown = f"{key[:4]}{'*' * 8}{key[-4:]}" if len(key) > 8 else "*" * len(key)
        return self.refusal(
            401,
            f"Incorrect API key provided: {shown}. You can find your API key at "
            "https://platform.openai.com/account/api-keys.",
            code="invalid_api_key",
        )

    def check(
        self,
        body: Any,
        width: int,
        max_batch: int | None,
        models: Sequence[str],
        allow: Sequence[str],
    ) -> None:
        """Raise RefusalError where this server would refuse the request."""
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise self.refusal(self.refused, "you must provide a model parameter")
        unknown = sorted(body.keys() - OPENAI_FIELDS - set(allow))
        if self.strict and unknown:
            raise self.refusal(400, f"Unrecognized request argument supplied: {unknown[0]}")
        if models and not self.any_model and body["model"] not in models:
            raise self.refusal(
                404,
                f"The model `{body['model']}` does not exist or you do not have access to it.",
                code="model_not_found",
            )
        self._check_input(body.get("input"), max_batch or self.max_batch)
        self._check_dimensions(body.get("dimensions"), width)

    def shape(self, vector: np.ndarray, dimensions: int | None) -> np.ndarray:
        """Return the vector as this server sends it, cut to `dimensions` if it heeds that."""
        if dimensions and self.dimensions in ("slice", "full"):
            vector = vector[:dimensions]
        if self.unit:
            vector = vector / np.linalg.norm(vector.astype(np.float64))
        return vector.astype(np.float32)

    def write(self, vector: np.ndarray | None, *, base64: bool) -> Any:
        """Return what stands under `embedding`: base64 of little-endian float32, or numbers.

        Numbers are the shortest decimals that give the float32 back.
        """
        if vector is None:
            return None
        if vector.dtype.kind == "i":
            return vector.tolist()
        if base64:
            return b64.b64encode(vector.astype("<f4").tobytes()).decode()
        return [float(number) for number in vector.astype(str)]

    def _check_input(self, given: Any, max_batch: int | None) -> None:
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, list) or not given:
            raise self.refusal(self.refused, INVALID_INPUT)
        if isinstance(given[0], int):
            given = [given]
        if not self.empty_text and any(len(text) == 0 for text in given):
            raise self.refusal(self.refused, INVALID_INPUT)
        if not self.ids and any(isinstance(text, list) for text in given):
            raise self.refusal(self.refused, self.ids_message)
        if max_batch and len(given) > max_batch:
            message = INVALID_INPUT
            if self.error == "flat":
                message = f"batch size {len(given)} > maximum allowed batch size {max_batch}"
            raise self.refusal(self.refused, message)

    def _check_dimensions(self, dimensions: int | None, width: int) -> None:
        if dimensions is None or self.dimensions in ("ignore", "full"):
            return
        if self.dimensions == "refuse":
            raise self.refusal(
                400,
                "Model does not support matryoshka representation, "
                "changing output dimensions will lead to poor results.",
                kind="BadRequestError",
                code=400,
            )
        if dimensions > width:
            raise self.refusal(
                self.refused,
                f"Invalid value for 'dimensions' = {dimensions}. "
                f"Must be less than or equal to {width}.",
            )


FLAVOURS: Mapping[str, Flavour] = {
    "openai": Flavour(),
    "llama-server": Flavour(
        strict=False,
        unit=True,
        dimensions="ignore",
        empty_text=True,
        max_batch=None,
        error="int_code",
        any_model=True,
        item_keys={"encoding_format": "base64"},
    ),
    "tei": Flavour(
        strict=False,
        unit=True,
        max_batch=32,
        refused=422,
        error="flat",
        any_model=True,
        model="BAAI/bge-small-en-v1.5",
        headers={"x-compute-type": "cpu", "x-compute-time": "12", "x-inference-time": "9"},
    ),
    "ollama": Flavour(
        strict=False,
        unit=True,
        dimensions="full",
        ids=False,
        ids_message="invalid input type",
        empty_text=True,
        max_batch=None,
    ),
    "vllm": Flavour(
        strict=False,
        unit=True,
        dimensions="refuse",
        max_batch=None,
        answer_keys={"id": "embd-0123456789abcdef", "created": 1769904000},
    ),
    "lmstudio": Flavour(
        strict=False,
        base64=False,
        dimensions="ignore",
        ids=False,
        ids_message="'input' field must be a string or an array of strings",
        empty_text=True,
        max_batch=None,
        error="text",
        any_model=True,
        usage=False,
    ),
}
