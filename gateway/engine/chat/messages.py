"""Messages as a chat template wants them: plain dicts, text only.

A list of text parts becomes one text; arguments of earlier calls become the object that they are,
because templates write them as JSON themselves. Knows roles and parts; not templates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.engine.chat.body import (
    NULL,
    AssistantMessage,
    Content,
    Message,
    Part,
    ToolCall,
    ToolMessage,
)
from gateway.errors import InvalidRequestError

_TEXT_ONLY = "This model takes text only: a part must have the type 'text'."


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages for a template; raise InvalidRequestError with the place at fault."""
    names: dict[str, str] = {}
    plain = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if isinstance(message, AssistantMessage):
            plain.append(_assistant(message, where))
            names.update((call.id, call.function.name) for call in message.tool_calls or ())
        elif isinstance(message, ToolMessage):
            plain.append(_tool(message, names, where))
        else:
            role = message.__struct_config__.tag
            text = _text(message.content, where, ("text",))
            plain.append({"role": role, "content": text} | _name(message.name))
    return plain


def _assistant(message: AssistantMessage, where: str) -> dict[str, Any]:
    for field in ("audio", "function_call"):
        if getattr(message, field) != NULL:
            hint = "use 'tool_calls'" if field == "function_call" else "this model takes text only"
            raise InvalidRequestError(
                f"'{where}.{field}' is not supported: {hint}.", param=f"{where}.{field}"
            )
    content = message.content
    if content is None and message.refusal is None and not message.tool_calls:
        raise InvalidRequestError(
            f"'{where}.content' is required unless 'tool_calls' is given.",
            param=f"{where}.content",
        )
    # Templates write what they find, so null would become the word None in a prompt.
    text = _text(content or message.refusal or "", where, ("text", "refusal"))
    plain: dict[str, Any] = {"role": "assistant", "content": text, **_name(message.name)}
    # Templates ask whether the key is there, so it is only there with calls in it.
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    return plain


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": _arguments(call.function.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _arguments(text: str) -> Any:
    """Return the object that the text is; the text itself where a model once wrote a broken one."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _tool(message: ToolMessage, names: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return a function's result with the function's name, which some templates ask for."""
    return {
        "role": "tool",
        "content": _text(message.content, where, ("text",)),
        "tool_call_id": message.tool_call_id,
    } | _name(message.name or names.get(message.tool_call_id))


def _name(name: str | None) -> dict[str, str]:
    return {} if name is None else {"name": name}


def _text(content: Content, where: str, kinds: Sequence[str]) -> str:
    if isinstance(content, str):
        return content
    if not content:
        raise InvalidRequestError(
            f"'{where}.content' must hold at least one part.", param=f"{where}.content"
        )
    return "".join(
        _part(part, f"{where}.content[{index}]", kinds) for index, part in enumerate(content)
    )


def _part(part: Part, where: str, kinds: Sequence[str]) -> str:
    if part.type not in kinds:
        raise InvalidRequestError(
            f"'{where}.type' is not valid. {_TEXT_ONLY}", param=f"{where}.type"
        )
    text = part.refusal if part.type == "refusal" else part.text
    if text is None:
        raise InvalidRequestError(
            f"'{where}.{part.type}' is required.", param=f"{where}.{part.type}"
        )
    return text
