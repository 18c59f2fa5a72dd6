"""From a request's body to what a context is given: all that can be refused is refused here.

For one thread, which is not the event loop's: templates, grammars and tokens of a long conversation
take a while. Knows the request, the template and the vocabulary; nothing of contexts or HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.engine.chat.grammar import grammar_of
from gateway.engine.chat.request import ChatRequest, Limits, parse_request
from gateway.engine.chat.template import Template
from gateway.engine.decoder import Guard, text_bytes
from gateway.engine.faults import PromptCrashesEngineError
from gateway.engine.journal import Journal
from gateway.errors import InvalidRequestError

if TYPE_CHECKING:
    # What is here runs without llama.cpp, over anything of the same shape.
    from gateway.engine.chat.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be answered."""

    request: ChatRequest
    prompt: list[int]
    grammar: str | None
    max_tokens: int
    """Most tokens of one choice: what was asked for, or what the context has left."""
    digest: bytes
    """What the journal calls it."""


class ChatPreparer:
    """Turns bodies into prepared requests, or says what is wrong with them."""

    def __init__(
        self,
        template: Template,
        vocabulary: "Vocabulary",
        journal: Journal,
        guard: Guard,
        *,
        slot: int,
        limit: int,
        clock: Callable[[], float],
    ) -> None:
        """`limit` is the context's tokens; `clock` is for templates that name the day, in UTC."""
        self._template = template
        self._vocabulary = vocabulary
        self._journal = journal
        self._guard = guard
        self._slot = slot
        self._limit = limit
        self._clock = clock
        self._limits = Limits(vocab=vocabulary.size, context=limit)

    def prepare(self, body: bytes) -> Prepared:
        """Raises InvalidRequestError and PromptCrashesEngineError."""
        request = parse_request(body, self._limits)
        grammar = grammar_of(request, self._template)
        now = datetime.fromtimestamp(self._clock(), UTC)
        parts = [(text.encode(), marked) for text, marked in self._template.render(request, now)]
        prompt = b"".join(text for text, _ in parts)
        if len(prompt) > text_bytes(self._limit):
            raise self._too_long(f"your messages have {len(prompt)} bytes")
        # A grammar can kill as well as a prompt; the two together are what was in work.
        digest = self._journal.digest(b"chat", prompt + b"\0" + (grammar or "").encode())
        if self._journal.refused(digest):
            raise PromptCrashesEngineError
        tokens = self._guard.run(self._slot, digest, self._vocabulary.tokenize_parts, parts)
        if not tokens:
            raise InvalidRequestError(
                "'messages' do not fit this model: its chat template makes nothing of them.",
                param="messages",
            )
        return Prepared(request, tokens, grammar, self._room(len(tokens), request), digest)

    def _room(self, prompt: int, request: ChatRequest) -> int:
        """Return how many tokens a choice may have; raises InvalidRequestError."""
        if prompt >= self._limit:
            raise self._too_long(f"your messages resulted in {prompt} tokens")
        asked = request.max_tokens
        left = self._limit - prompt
        if asked is None:
            return left
        if asked > left:
            raise self._too_long(
                f"you requested {prompt + asked} tokens ({prompt} in the messages, {asked} in the"
                " completion)",
                " or completion",
            )
        return asked

    def _too_long(self, requested: str, other: str = "") -> InvalidRequestError:
        return InvalidRequestError(
            f"This model's maximum context length is {self._limit} tokens. However, {requested}."
            f" Please reduce the length of the messages{other}.",
            param="messages",
            code="context_length_exceeded",
        )
