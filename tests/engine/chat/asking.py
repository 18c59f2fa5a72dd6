"""Requests and templates as the tests of the engine's language write them."""

import json
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from gateway.engine.chat.request import ChatRequest, Limits, parse_request
from gateway.engine.chat.template import Template

LIMITS = Limits(vocab=500, context=4096)
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
USER = {"role": "user", "content": "How far is Mars?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


def ask(**fields: Any) -> ChatRequest:
    """Parse a request that is right but for the given fields."""
    return parse_request(body(**fields), LIMITS)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER]} | fields).encode()


def built_in(name: str, specials: tuple[str, ...] = ()) -> Template:
    source = (files("gateway") / "engine" / "chat" / "templates" / f"{name}.jinja").read_text()
    return Template(source, "<s>", "</s>", specials)


def prompt(template: Template, request: ChatRequest) -> str:
    return "".join(text for text, _ in template.render(request, NOW))
