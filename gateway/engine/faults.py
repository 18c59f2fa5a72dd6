"""What can go wrong in the engine: a start that is refused, and a text that fails.

    RefusedError (exit 3: this file or config will never do)
    └── ResourcesError (exit 4: this machine will not do)
    GatewayError (see gateway.errors)
    ├── ItemError                500  one text failed, through no fault of its form
    │   ├── TextCrashesEngineError         the engine died over it three times
    │   ├── InvalidVectorError             llama.cpp gave no vector, or not a usable one
    │   └── DecodeFailedError              llama.cpp gave up
    └── PromptCrashesEngineError 500  the same of messages to be answered

Knows the words a person or a client reads; not who sends them.
"""

from typing import ClassVar

import msgspec

from gateway.errors import GatewayError, InvalidInputError, UnavailableError, retry_headers

NO_RETRY = {"x-should-retry": "false"}


class RefusedError(Exception):
    """The engine will not start; the message says why and what to do."""

    exit_code: ClassVar[int] = 3


class ResourcesError(RefusedError):
    """The machine lacks what this model and config need."""

    exit_code = 4


class ItemError(GatewayError):
    """One text of a request failed; `item` is its position, which whoever knows it sets."""

    item: int = 0


class TextCrashesEngineError(ItemError):
    """The text was in work at three deaths of the engine."""

    default_code = "text_crashes_engine"

    def __init__(self) -> None:
        super().__init__(
            "This text was being worked on each time the engine died, three times within an hour;"
            " it is not tried again for an hour.",
            param="input",
            headers=NO_RETRY,
        )


class PromptCrashesEngineError(GatewayError):
    """The messages were in work at three deaths of the engine."""

    default_code = "text_crashes_engine"

    def __init__(self) -> None:
        super().__init__(
            "These messages were being answered each time the engine died, three times within an"
            " hour; they are not tried again for an hour.",
            param="messages",
            headers=NO_RETRY,
        )


class InvalidVectorError(ItemError):
    """llama.cpp computed nothing, only zeros, or numbers that are none."""

    default_code = "invalid_vector"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The model gave {what} for this text, which is not a vector.",
            param="input",
            headers=NO_RETRY,
        )


class DecodeFailedError(ItemError):
    """llama.cpp gave up on the text, in a fresh context too."""

    default_code = "decode_failed"

    def __init__(self, code: int) -> None:
        super().__init__(f"llama.cpp could not decode this text (code {code}).", param="input")
        self.llama_code = code


def overloaded(wait: float) -> UnavailableError:
    """Return what a client is told when the queue is full; it may be shorter after `wait` s."""
    return UnavailableError(
        "The engine has more waiting than it may hold; ask again later.",
        code="engine_overloaded",
        headers=retry_headers(wait),
    )


def out_of_memory(error: RefusedError) -> UnavailableError:
    """Return what a client is told where a context had to be made anew and there was no room."""
    return UnavailableError(str(error), code="engine_out_of_memory", headers=retry_headers(5.0))


def error_body(error: GatewayError) -> bytes:
    """Return OpenAI's error body, with `item` beside its four keys where one text is at fault."""
    body = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.code,
    }
    if isinstance(error, ItemError | InvalidInputError):
        body["item"] = error.item  # type: ignore[assignment]
    return msgspec.json.encode({"error": body})
