"""What tokens cost: how the config says it, and OpenAI's list for embedding models it is silent on.

As of November 2026: the list prices of the standard tier, without the Batch API's discount, from
OpenAI's pricing page (developers.openai.com/api/docs/pricing) and the pages of the models there.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.config.forms import Form, Surroundings
from gateway.config.problems import MisfitError, Reference, echo, quote

PRICES: Mapping[str, float] = {
    "text-embedding-3-small": 0.02,
    "text-embedding-3-large": 0.13,
    "text-embedding-ada-002": 0.10,
}
"""US dollars for a million input tokens, by OpenAI's name of the model."""

_DEAREST = 1_000_000
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class ChatPrice(NamedTuple):
    """US dollars for a million tokens: of prompts, and of what is answered."""

    input: float
    output: float


def _read_price(value: Any, _: Surroundings) -> float | ChatPrice:
    if not isinstance(value, dict):
        return _dollars(value)
    for name in value:
        if name not in ChatPrice._fields:
            raise MisfitError(f"unknown; a price has input and output, not {quote(name)}", name)
    for name in ChatPrice._fields:
        if name not in value:
            raise MisfitError(f"{name} is missing; write {{ input = 0.15, output = 0.60 }}")
    return ChatPrice(*(_dollars(value[name], name) for name in ChatPrice._fields))


def _dollars(value: Any, *at: str, what: str = "US dollars for a million tokens") -> float:
    if isinstance(value, Reference) and _NUMBER.fullmatch(value):
        value = float(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _DEAREST:
        raise MisfitError(f"must be {what}, as a number such as 0.02, not {echo(value)}", *at)
    return float(value)


def _read_budget(value: Any, _: Surroundings) -> float:
    return _dollars(value, what="US dollars")


_DOLLARS = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": _DEAREST},
        {"type": "string", "pattern": r"\$\{"},
    ]
}
BUDGET = Form(_read_budget, _DOLLARS)
PRICE = Form(
    _read_price,
    {
        "anyOf": [
            *_DOLLARS["anyOf"],
            {
                "type": "object",
                "properties": dict.fromkeys(ChatPrice._fields, _DOLLARS),
                "required": list(ChatPrice._fields),
                "additionalProperties": False,
            },
        ]
    },
    lambda price: price._asdict() if isinstance(price, ChatPrice) else price,
)
