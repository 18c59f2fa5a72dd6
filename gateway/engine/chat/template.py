"""The chat template of a model: messages become the text it was taught to go on from.

A template is a program in Jinja's language that came with the weights, so it runs in Jinja's
sandbox, as transformers runs it. Bounded: the source, the text it makes, `range`, products and
powers. Not bounded: loops inside loops; a template that never ends must be seen at the start, where
it is tried once.

What people write stays text: a control token's name inside a message, a tool or a call is never
read as that token. Every such name is taken out before the template runs, a mark is put in its
place, and the mark becomes a part of its own that is to be tokenized as plain text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.engine.chat.request import ChatRequest
from gateway.engine.chat.tool_formats import Mistral, ToolFormat, format_of
from gateway.engine.faults import RefusedError
from gateway.errors import InvalidRequestError

MAX_SOURCE = 256 << 10
"""Characters of a template; the longest ones in use have a tenth of it."""
MAX_RENDERED = 16 << 20
"""Characters of a prompt, which is far more than any context holds."""
MAX_PRODUCT = 1 << 20
"""Largest length a template may multiply a text or a list to, and largest power's exponent."""

Part = tuple[str, bool]
"""A piece of the prompt, and whether control tokens in it are to be read as such."""

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Around a mark's number: code points that Unicode gives to no character."""
_MARK = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")
_HINT = "Set `chat_template` of this upstream to a Jinja file, or to one of the built-in names."


class Template:
    """One model's template; may be used by several threads."""

    def __init__(self, source: str, bos: str, eos: str, specials: Iterable[str] = ()) -> None:
        """`specials`: the names of control tokens, which only the template may write.

        Raises RefusedError where the source is no template.
        """
        if len(source) > MAX_SOURCE:
            raise RefusedError(
                f"The chat template has {len(source)} characters, more than {MAX_SOURCE}. {_HINT}"
            )
        environment = _Environment()
        try:
            parsed = environment.parse(source)
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise RefusedError(
                f"The chat template is not valid Jinja: {error.message} (line {error.lineno}). "
                f"{_HINT}"
            ) from None
        except RecursionError:
            raise RefusedError(f"The chat template is nested too deeply. {_HINT}") from None
        self.takes_tools = "tools" in meta.find_undeclared_variables(parsed)
        self.tool_format = format_of(source) if self.takes_tools else None
        self._bos, self._eos = bos, eos
        self._knows_developer = "developer" in source
        self._wants_short_ids = isinstance(self.tool_format, Mistral)
        self._specials = sorted({name for name in specials if name}, key=len, reverse=True)
        names = [*map(re.escape, self._specials), _OPEN, _CLOSE]
        self._special = re.compile("|".join(names))
        self._marked = [*self._specials, _OPEN, _CLOSE]

    def calls_of(self, request: ChatRequest) -> ToolFormat | None:
        """Return how the answer's calls are written; None: the request has no tools.

        Raises InvalidRequestError where the model was not taught to call, or in a way not known.
        """
        if not request.tools:
            return None
        if self.tool_format is None:
            what = "writes calls in a form that is not known here"
            if not self.takes_tools:
                what = "knows no tools"
            raise InvalidRequestError(
                f"'tools' cannot be used: the chat template of this model {what}. Set "
                '`chat_template` of its upstream to one that does, such as "chatml".',
                param="tools",
            )
        return self.tool_format

    def render(self, request: ChatRequest, now: datetime) -> list[Part]:
        """Return the prompt; its parts follow each other with nothing between.

        Raises InvalidRequestError with the template's own words where it refuses the messages.
        """
        self.calls_of(request)
        try:
            messages = [self._message(message) for message in request.messages]
            tools = self._safe(request.tools) or None
        except RecursionError:
            raise _refusal("cannot be applied to them: they are nested too deeply") from None
        context: dict[str, Any] = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": True,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "strftime_now": now.strftime,
        }
        if request.reasoning_effort is not None:
            context["reasoning_effort"] = request.reasoning_effort
        return self._parts(self._run(context))

    def _run(self, context: Mapping[str, Any]) -> str:
        pieces, size = [], 0
        try:
            for piece in self._template.generate(context):
                size += len(piece)
                if size > MAX_RENDERED:
                    raise _refusal("made more text than any context holds")
                pieces.append(piece)
        except _RaisedError as error:
            raise _refusal(f"refuses them: {self._plain(str(error))[:500]}") from None
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _refusal(f"cannot be applied to them ({type(error).__name__})") from None
        except (AttributeError, RecursionError, MemoryError) as error:
            raise _refusal(f"cannot be applied to them ({type(error).__name__})") from None
        return "".join(pieces)

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        safe = {name: self._safe(value) for name, value in message.items() if name != "role"}
        safe["role"] = message["role"]
        if safe["role"] == "developer" and not self._knows_developer:
            safe["role"] = "system"
        if self._wants_short_ids:
            if "tool_call_id" in safe:
                safe["tool_call_id"] = _short_id(safe["tool_call_id"])
            for call in safe.get("tool_calls", ()):
                call["id"] = _short_id(call["id"])
        return safe

    def _safe(self, value: Any) -> Any:
        """Return the value with marks in place of control tokens' names, in keys too."""
        if isinstance(value, str):
            return self._special.sub(self._mark, value)
        if isinstance(value, Mapping):
            return {self._safe(name): self._safe(item) for name, item in value.items()}
        if isinstance(value, Sequence):
            return [self._safe(item) for item in value]
        return value

    def _mark(self, found: re.Match[str]) -> str:
        return f"{_OPEN}{self._marked.index(found[0])}{_CLOSE}"

    def _parts(self, text: str) -> list[Part]:
        parts: list[Part] = []
        # Marks stand at every second place; a template that cuts one apart leaves it as text.
        for place, piece in enumerate(_MARK.split(text)):
            known = place % 2 == 0 or int(piece) >= len(self._marked)
            if piece:
                parts.append((piece, True) if known else (self._marked[int(piece)], False))
        return parts

    def _plain(self, text: str) -> str:
        return "".join(piece for piece, _ in self._parts(text))


class _RaisedError(Exception):
    """The template called `raise_exception`."""


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, with bounds on what may grow at once."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a product or a power, unless it would be huge."""
        for one, other in ((left, right), (right, left)):
            size = len(one) if isinstance(one, str | list | tuple) else 1
            if isinstance(other, int) and abs(other) * size > MAX_PRODUCT:
                raise OverflowError
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: marks an answer for training; here it is its text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands between the two."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as transformers writes it: Jinja's own escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: object) -> NoReturn:
    raise _RaisedError(str(message))


def _refusal(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"'messages' do not fit this model: its chat template {what}.", param="messages"
    )


def _short_id(name: str) -> str:
    """Return an id as Mistral's templates insist on, nine letters or digits; equal for equal."""
    if len(name) == 9 and name.isascii() and name.isalnum():
        return name
    return blake2b(name.encode(), digest_size=8).hexdigest()[:9]
