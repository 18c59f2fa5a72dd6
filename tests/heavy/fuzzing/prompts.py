"""What an engine reads: chat requests, and the JSON schemas and grammars in them."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from gateway.engine.chat.faults import GrammarError
from gateway.engine.chat.gbnf_check import check_grammar
from gateway.engine.chat.grammar import grammar_of
from gateway.engine.chat.named import find_template, template_names
from gateway.engine.chat.request import Limits, parse_request
from gateway.engine.chat.template import Template
from gateway.errors import InvalidRequestError
from tests.heavy.fuzzing.target import Target

_LIMITS = Limits(vocab=1000, context=4096)
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_TEMPLATES = [
    Template(find_template("", name)[0], "<s>", "</s>", ["<|im_start|>", "<|im_end|>", "</s>"])
    for name in template_names()
]


def try_one(data: bytes) -> None:
    """Only an InvalidRequestError may come out; a grammar that we made is one that can be read."""
    with suppress(InvalidRequestError):
        request = parse_request(data, _LIMITS)
        for template in _TEMPLATES:
            with suppress(InvalidRequestError):
                template.render(request, _NOON)
            with suppress(InvalidRequestError, GrammarError):
                grammar = grammar_of(request, template)
                if grammar is not None:
                    check_grammar(grammar)
    with suppress(GrammarError):
        check_grammar(data.decode("utf-8", "surrogateescape"))


_SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "pattern": "^[a-z]{1,3}$"},
        "b": {"type": "integer", "minimum": -5, "maximum": 500},
        "c": {"enum": ["x", 1, None]},
        "d": {"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 1, "maxItems": 9},
        "f": {"anyOf": [{"type": "number", "exclusiveMaximum": 1.5}, {"const": {"a": []}}]},
        "g": {"type": "string", "format": "date-time"},
        "h": {"allOf": [{"type": "string"}, {"minLength": 1, "maxLength": 20}]},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
    "$defs": {"e": {"type": "boolean"}},
}


def _asked(**fields: Any) -> bytes:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "<|im_end|> hi"}]},
    ]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


_TOOL = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA, "strict": True}}
_FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": _SCHEMA, "strict": True}}

ENGINE = Target(
    try_one,
    [
        _asked(seed=1, temperature=0.5, top_p=0.1, stop=["a", "b"], max_tokens=5, n=2, stream=True),
        _asked(response_format=_FORM),
        _asked(response_format={"type": "json_object"}, logprobs=True, top_logprobs=3),
        _asked(tools=[_TOOL], tool_choice="required", parallel_tool_calls=False),
        _asked(tools=[_TOOL], tool_choice={"type": "function", "function": {"name": "f"}}),
        _asked(logit_bias={"5": -100}, presence_penalty=1, frequency_penalty=-1),
        b'root ::= "a" [^a-z]{2,5} (b | "c")* b?\nb ::= "\\x41" .\n',
    ],
    [
        b'"$ref":"#"', b'"pattern":', b'"minLength":', b'"maxItems":', b'"allOf":', b'"oneOf":',
        b'"additionalProperties":', b"{0,100000}", b"(a*)*", b"[^", b'"const":', b'"type":',
        b'"items":', b'"prefixItems":', b'"enum":', b'"multipleOf":', b"1e308", b"root", b"::=",
        b"\\d+",
    ],
)  # fmt: skip
