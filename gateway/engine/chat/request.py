"""What a client asks of a local chat model: every field checked, none passed over that matters.

Fields that would change the answer and cannot be had are a 400 with the reason; those that change
nothing are listed in `body.Body` and not read. Knows the request; not the model's template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.engine.chat.body import (
    NULL,
    Body,
    Function,
    Message,
    NamedChoice,
    ResponseFormat,
    Tool,
    decode_body,
)
from gateway.engine.chat.messages import plain_messages
from gateway.errors import InvalidRequestError

SMALLEST_NUCLEUS = 1e-6
"""What `top_p` 0 means: the likeliest token alone."""

_REFUSED = {
    "audio": "This model writes text only.",
    "functions": "It is the old form of 'tools': use that.",
    "function_call": "It is the old form of 'tool_choice': use that.",
    "moderation": "Nothing is moderated here.",
    "web_search_options": "This model cannot search the web.",
}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model can: tokens of its vocabulary, and tokens of its context."""

    vocab: int
    context: int


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that makes sense in itself; whether it fits the model is still to be seen."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    """Plain dicts for the template, every content a text."""
    tools: Sequence[Mapping[str, Any]]
    """What the template shows to the model, in OpenAI's form; empty with tool_choice none."""
    functions: Mapping[str, Mapping[str, Any]]
    """The functions that may be called, and the schema of their arguments."""
    must_call: bool
    """A call is wanted, not a text: tool_choice required, or a function's name."""
    parallel: bool
    """Several calls may come in one answer."""
    schema: Mapping[str, Any] | None
    """JSON schema of the answer; None: any text."""
    seed: int | None
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    top_logprobs: int | None
    """How many alternatives come with each token; None: no log probabilities."""
    stop: tuple[str, ...]
    max_tokens: int | None
    """Most tokens of one choice; what the prompt leaves of the context may be less."""
    n: int
    stream: bool
    include_usage: bool
    owner: str
    """Whose prompt it is: what is decoded of it is reused for prompts of the same owner only."""
    reasoning_effort: str | None
    """For templates that know the word; others have no reasoning to bound."""


def parse_request(body: bytes, limits: Limits) -> ChatRequest:
    """Read the body of `POST /v1/chat/completions`.

    Raises InvalidRequestError with the field's path as `param`; its message quotes nothing.
    """
    asked = decode_body(body)
    _refuse_what_cannot_be(asked)
    tools = _tools(asked.tools or ())
    if asked.tool_choice == "none":
        tools = ()
    must_call, functions = _choice(asked.tool_choice, [tool.function for tool in tools])
    return ChatRequest(
        model=_model(asked.model),
        messages=plain_messages(_messages(asked.messages)),
        tools=[_shown(tool.function) for tool in tools],
        functions=functions,
        must_call=must_call,
        parallel=asked.parallel_tool_calls is not False,
        schema=_schema(asked.response_format),
        seed=asked.seed,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else max(asked.top_p, SMALLEST_NUCLEUS),
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        logit_bias=_logit_bias(asked.logit_bias or {}, limits.vocab),
        top_logprobs=_top_logprobs(asked),
        stop=_stop(asked.stop),
        max_tokens=_max_tokens(asked, limits.context),
        n=asked.n or 1,
        stream=asked.stream is True,
        include_usage=_include_usage(asked),
        owner=asked.prompt_cache_key or "",
        reasoning_effort=asked.reasoning_effort,
    )


def _refuse_what_cannot_be(asked: Body) -> None:
    for field, reason in _REFUSED.items():
        if getattr(asked, field) != NULL:
            raise InvalidRequestError(f"'{field}' is not supported. {reason}", param=field)
    if asked.modalities is not None and asked.modalities != ["text"]:
        raise InvalidRequestError(
            "'modalities' must be ['text']: this model writes text only.", param="modalities"
        )
    if asked.verbosity not in (None, "medium"):
        raise InvalidRequestError(
            "'verbosity' must be 'medium': this model cannot be told to write more or less. "
            "Ask for it in a message, or set 'max_completion_tokens'.",
            param="verbosity",
        )


def _model(model: str | None) -> str:
    if not model:
        raise InvalidRequestError("you must provide a model parameter", param="model")
    return model


def _messages(messages: Sequence[Message] | None) -> Sequence[Message]:
    if not messages:
        raise InvalidRequestError("'messages' must hold at least one message.", param="messages")
    return messages


def _logit_bias(asked: Mapping[str, float], vocab: int) -> Mapping[int, float]:
    """Return the bias by token id."""
    if not all(_is_id(key, vocab) for key in asked):
        raise InvalidRequestError(
            f"'logit_bias' must have token ids of this model's vocabulary as keys: 0 to "
            f"{vocab - 1}, written as strings without leading zeros.",
            param="logit_bias",
        )
    return {int(key): bias for key, bias in asked.items()}


def _is_id(key: str, vocab: int) -> bool:
    # Longer keys are none, and turning them into numbers would take long.
    return len(key) <= 10 and key.isdecimal() and str(int(key)) == key and int(key) < vocab


def _top_logprobs(asked: Body) -> int | None:
    if asked.logprobs:
        return asked.top_logprobs or 0
    if asked.top_logprobs is not None:
        raise InvalidRequestError(
            "'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs"
        )
    return None


def _stop(asked: str | list[str] | None) -> tuple[str, ...]:
    stops = (asked,) if isinstance(asked, str) else tuple(asked or ())
    if "" in stops:
        raise InvalidRequestError(
            "'stop' must not hold an empty string: it would end every answer at once.",
            param="stop",
        )
    return stops


def _max_tokens(asked: Body, context: int) -> int | None:
    """Return the bound; the old name and the new one must not contradict each other."""
    new, old = asked.max_completion_tokens, asked.max_tokens
    if new is not None and old is not None and new != old:
        raise InvalidRequestError(
            "'max_tokens' is the old name of 'max_completion_tokens'; they were given with "
            "different values. Send the new one only.",
            param="max_tokens",
        )
    wanted, name = (old, "max_tokens") if new is None else (new, "max_completion_tokens")
    if wanted is not None and wanted > context:
        raise InvalidRequestError(
            f"'{name}' is too large: {wanted}. This model's context holds {context} tokens.",
            param=name,
        )
    return wanted


def _include_usage(asked: Body) -> bool:
    if asked.stream_options is None:
        return False
    if not asked.stream:
        raise InvalidRequestError(
            "'stream_options' may only be given when 'stream' is true.", param="stream_options"
        )
    return asked.stream_options.include_usage is True


def _schema(asked: ResponseFormat | None) -> Mapping[str, Any] | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return _ANY_OBJECT
    if asked.json_schema is None:
        raise InvalidRequestError(
            "'response_format.json_schema' is required with the type 'json_schema'.",
            param="response_format.json_schema",
        )
    return _ANY_OBJECT if asked.json_schema.schema is None else asked.json_schema.schema


def _tools(tools: Sequence[Tool]) -> Sequence[Tool]:
    seen = set()
    for index, tool in enumerate(tools):
        where = f"tools[{index}].function"
        name, parameters = tool.function.name, tool.function.parameters
        if name in seen:
            raise InvalidRequestError(
                f"'{where}.name' is the name of another tool before it; names must differ.",
                param=f"{where}.name",
            )
        seen.add(name)
        if parameters and parameters.get("type") != "object":
            raise InvalidRequestError(
                f"'{where}.parameters' must be a JSON schema of the type 'object'.",
                param=f"{where}.parameters",
            )
    return tools


def _shown(function: Function) -> dict[str, Any]:
    """Return a tool as templates expect it, with a description and parameters always."""
    shown = {
        "name": function.name,
        "description": function.description or "",
        "parameters": function.parameters or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": shown}


def _choice(
    choice: str | NamedChoice | None, offered: Sequence[Function]
) -> tuple[bool, Mapping[str, Mapping[str, Any]]]:
    """Return whether a call must be made, and of which functions."""
    schemas = {function.name: _arguments_schema(function) for function in offered}
    if isinstance(choice, NamedChoice):
        name = choice.function.name
        if name not in schemas:
            raise InvalidRequestError(
                "'tool_choice.function.name' must be the name of one of 'tools'.",
                param="tool_choice.function.name",
            )
        return True, {name: schemas[name]}
    if choice not in (None, "none", "auto", "required"):
        raise InvalidRequestError(
            "'tool_choice' must be 'none', 'auto', 'required', or an object that names a function.",
            param="tool_choice",
        )
    if choice == "required" and not schemas:
        raise InvalidRequestError(
            "'tool_choice' must not be 'required' without 'tools'.", param="tool_choice"
        )
    return choice == "required", schemas


def _arguments_schema(function: Function) -> Mapping[str, Any]:
    """Return the schema of a function's arguments; OpenAI: no `parameters`, no arguments."""
    return function.parameters or {"type": "object", "additionalProperties": False}
