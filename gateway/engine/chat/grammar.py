"""What the model may write, where the request says so: an answer's form, and calls that must come.

Knows the request and how a model writes calls; not llama.cpp.
"""

from collections.abc import Mapping
from typing import Any

from gateway.engine.chat.json_schema import schema_rule
from gateway.engine.chat.request import ChatRequest
from gateway.engine.chat.rules import Rules, UnsupportedError
from gateway.engine.chat.template import Template
from gateway.errors import InvalidRequestError


def grammar_of(request: ChatRequest, template: Template) -> str | None:
    """Return the grammar (GBNF, root `root`) the answer must follow; None: any text.

    Raises InvalidRequestError naming `response_format` or `tools`, for what cannot be kept.
    """
    form = template.calls_of(request)
    rules = Rules()
    options = []
    if form is not None and (request.must_call or request.schema is not None):
        arguments = {
            name: _rule(schema, rules, "tools", "the parameters of a tool in 'tools'")
            for name, schema in request.functions.items()
        }
        options.append(form.grammar(arguments, parallel=request.parallel))
    if request.schema is not None and not request.must_call:
        options.append(_rule(request.schema, rules, "response_format", "the schema"))
    return rules.text(" | ".join(options)) if options else None


def _rule(schema: Mapping[str, Any], rules: Rules, param: str, what: str) -> str:
    try:
        return schema_rule(schema, rules)
    except UnsupportedError as error:
        raise InvalidRequestError(
            f"'{param}' is not supported as it is: {what} cannot be kept, because {error}.",
            param=param,
        ) from None
