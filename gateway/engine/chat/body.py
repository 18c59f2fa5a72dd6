"""The body of `POST /v1/chat/completions` as OpenAI describes it: names, types and ranges.

Null and absent are the same for every optional field, as OpenAI's SDKs send either. Fields that are
not here are ignored, as other servers do. Knows shapes; what they mean together is `request.py`'s.
"""

import re
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from gateway.errors import InvalidRequestError

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
Schema = dict[str, Any]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1)]
NULL = msgspec.Raw(b"null")
"""A field that is not there: the decoder takes no `Raw | None`."""


class Part(msgspec.Struct):
    """One item of a message's `content`."""

    type: str
    text: str | None = None
    refusal: str | None = None


Content = str | list[Part]


class CalledFunction(msgspec.Struct):
    """What an earlier answer called, its arguments as the text the model wrote."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    """One call of an earlier answer."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class SystemMessage(msgspec.Struct, tag_field="role", tag="system"):
    """What the model is told to be."""

    content: Content
    name: str | None = None


class DeveloperMessage(msgspec.Struct, tag_field="role", tag="developer"):
    """The newer name of a system message."""

    content: Content
    name: str | None = None


class UserMessage(msgspec.Struct, tag_field="role", tag="user"):
    """What a person says."""

    content: Content
    name: str | None = None


class AssistantMessage(msgspec.Struct, tag_field="role", tag="assistant"):
    """An earlier answer of the model."""

    content: Content | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: msgspec.Raw = NULL
    audio: msgspec.Raw = NULL


class ToolMessage(msgspec.Struct, tag_field="role", tag="tool"):
    """What a called function gave back."""

    content: Content
    tool_call_id: str
    name: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(msgspec.Struct):
    """What a tool is called, what it does, and the JSON schema of its arguments."""

    name: Name
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    """One item of `tools`."""

    type: Literal["function"]
    function: Function


class NamedFunction(msgspec.Struct):
    """The function that must be called."""

    name: str


class NamedChoice(msgspec.Struct):
    """`tool_choice` as an object."""

    type: Literal["function"]
    function: NamedFunction


class NamedSchema(msgspec.Struct):
    """`response_format.json_schema`."""

    name: Name
    description: str | None = None
    schema: Schema | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """What form the answer's text has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(msgspec.Struct):
    """`include_obfuscation` is not read: no answer of ours is padded, which OpenAI allows."""

    include_usage: bool | None = None


class Body(msgspec.Struct):
    """Every field that can change the answer, and those refused because they would.

    Not read, because the answer is the same with and without them: `user`, `metadata`,
    `safety_identifier`, `prompt_cache_options`, `prompt_cache_retention`, `service_tier` (there is
    one tier), `store` (nothing is kept for OpenAI's tools to find) and `prediction` (a hint that
    only makes OpenAI quicker).
    """

    model: str | None = None
    messages: list[Message] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_completion_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    verbosity: Literal["low", "medium", "high"] | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    audio: msgspec.Raw = NULL
    functions: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL
    moderation: msgspec.Raw = NULL
    web_search_options: msgspec.Raw = NULL


_decode = msgspec.json.Decoder(Body).decode
_PLACE = re.compile(r" - at (?:key in )?`\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN = "Invalid "
"""How the decoder begins when a value is not one of a list; it would quote the value."""
_VALUES = {
    "role": "'system', 'developer', 'user', 'assistant' or 'tool'",
    "response_format.type": "'text', 'json_object' or 'json_schema'",
    "type": "'function': this model runs no other kind of tool",
    "reasoning_effort": "'none', 'minimal', 'low', 'medium', 'high', 'xhigh' or 'max'",
    "verbosity": "'low', 'medium' or 'high'",
    "modalities": "'text'",
}


def decode_body(body: bytes) -> Body:
    """Read the body; raise InvalidRequestError naming the field whose type or range is wrong."""
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        _refuse(str(error))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidRequestError(
            "We could not parse the JSON body of your request: it must be one JSON object in UTF-8."
        ) from None


def _refuse(message: str) -> NoReturn:
    """Turn the decoder's message into one that names the field and quotes nothing."""
    place = _PLACE.search(message)
    reason = message[: place.start()] if place else message
    path = place["path"].replace("[...]", "") if place else ""
    missing = _MISSING.fullmatch(reason)
    if missing:
        path = f"{path}.{missing[1]}".lstrip(".")
        reason = "It is required"
    elif "matching regex" in reason:
        reason = "It must be 1 to 64 of the characters a-z, A-Z, 0-9, _ and -"
    elif reason.startswith(_UNKNOWN):
        reason = f"It must be {_values(path)}"
    if not path:
        raise InvalidRequestError(f"The body of your request is not valid. {reason}.")
    raise InvalidRequestError(f"'{path}' is not valid. {reason}.", param=path)


def _values(path: str) -> str:
    plain = re.sub(r"\[\d*\]", "", path)
    return _VALUES.get(plain) or _VALUES.get(plain.rpartition(".")[2]) or "one that is known"
