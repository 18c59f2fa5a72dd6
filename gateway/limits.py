"""What is too much for a request, a text or a call: tokens are counted, batches are split.

Pure but for asking a tokenizer or the backend; it knows nothing of caches or answers.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence

from gateway.cache.keys import Key
from gateway.errors import TooManyTokensError, UpstreamTimeoutError, context_length_exceeded
from gateway.route import Route
from gateway.tokens import LONGEST_TOKEN
from gateway.types import ANYONE, Caller, Text

TOKENS_PER_REQUEST = 300_000
"""OpenAI's limit for one embeddings request; held where tokens are known."""

_COUNTED_AT_ONCE = 4096
"""Characters that a tokenizer counts in about a millisecond: more of them leave the event loop."""


def must_count(route: Route, texts: Collection[Text]) -> bool:
    """Whether the tokens of these texts have to be known before the upstream is asked."""
    if route.model.count or route.model.max_tokens is not None:
        return True
    # Fewer bytes than that cannot be too many tokens, special ones included.
    return 4 * sum(map(len, texts)) > TOKENS_PER_REQUEST - 2 * len(texts)


async def count_tokens(
    route: Route, texts: Sequence[Text], others: int, deadline: float, caller: Caller = ANYONE
) -> Sequence[int] | None:
    """Return the exact tokens of each text, or None where they cannot be known.

    Raises InvalidInputError for a text over the model's `max_tokens`, TooManyTokensError for all
    of them together with the request's `others`, UpstreamTimeoutError at the deadline.
    """
    limit = route.model.max_tokens
    counts: Sequence[int] | None
    if route.model.count:
        counts = await _counted(route, texts, sum(map(len, texts)), deadline)
    else:
        counts = await route.backend.count(texts, deadline=deadline, caller=caller)
    if counts is None:
        return None
    for index, count in enumerate(counts):
        if limit is not None and count > limit:
            raise context_length_exceeded(count, limit, index)
    if sum(counts) + others > TOKENS_PER_REQUEST:
        raise TooManyTokensError(sum(counts) + others, TOKENS_PER_REQUEST)
    return counts


async def _counted(
    route: Route, texts: Sequence[Text], characters: int, deadline: float
) -> Sequence[int] | None:
    limit = route.model.max_tokens
    for index, text in enumerate(texts):
        # No token of cl100k is longer: to count these megabytes would only take time.
        if limit is not None and len(text) > limit * LONGEST_TOKEN:
            raise context_length_exceeded(-(-len(text) // LONGEST_TOKEN), limit, index)
    if characters <= _COUNTED_AT_ONCE:
        return route.counts(texts)
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.to_thread(route.counts, texts)
    except TimeoutError:
        raise UpstreamTimeoutError(
            "The tokens could not be counted within the gateway's request_timeout.",
            code="counting_timeout",
        ) from None


def split(
    texts: Mapping[Key, Text], max_batch: int, max_bytes: int
) -> Iterator[Mapping[Key, Text]]:
    """Split the texts in order, each part within both limits or of one text, and of one kind.

    OpenAI takes texts or arrays of ids, not both in one call.
    """
    for kind in (str, tuple):
        part: dict[Key, Text] = {}
        size = 0
        for key, text in texts.items():
            if type(text) is not kind:
                continue
            # A character is at most four bytes, an id at most seven digits and a comma.
            length = len(text) * (8 if isinstance(text, tuple) else 1 if text.isascii() else 4)
            if part and (len(part) >= max_batch or size + length > max_bytes):
                yield part
                part, size = {}, 0
            part[key] = text
            size += length
        if part:
            yield part
