"""The collectors of chats; `metrics` has all others, and holds these."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.chat.chatted import Chatted, price_of
from gateway.chat_route import ChatRoute
from gateway.completion import Usage

BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds. A hit takes well under a millisecond, an upstream under pressure a minute."""

Add = Callable[[Counter, tuple[str, ...], float], None]
"""Adds to a counter, which is brought up to date when it is asked for."""


class ChatMetrics:
    """What chats were told, and what it took."""

    def __init__(
        self, registry: CollectorRegistry, label: Callable[[str], str], cost: Counter, add: Add
    ) -> None:
        """`label` turns a model's name into the config's; `cost` counts vectors too."""
        self._label = label
        self._cost = cost
        self._add = add
        self.answers = Counter(
            "gateway_chat_answers",
            "Chat answers by where they came from.",
            ["model", "result"],
            registry=registry,
        )
        self.chat_tokens = Counter(
            "gateway_chat_tokens",
            "Tokens of prompts and completions, as far as they are told, made or had already.",
            ["model", "kind", "source"],
            registry=registry,
        )
        self.first_chunk_seconds = Histogram(
            "gateway_chat_first_chunk_seconds",
            "From a checked request to the first chunk of its stream.",
            ["model", "result"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.new_fingerprints = Counter(
            "gateway_new_fingerprints",
            "Values of system_fingerprint that were never seen before of the model.",
            ["model"],
            registry=registry,
        )

    def made(self, route: ChatRoute, usage: Usage) -> None:
        """Count the tokens of an upstream's answer to a chat, also where nobody waits for it."""
        label, price, add = self._label(route.name), price_of(route), self._add
        add(self.chat_tokens, (label, "prompt", "upstream"), usage.prompt_tokens)
        add(self.chat_tokens, (label, "completion", "upstream"), usage.completion_tokens)
        if price is not None:
            add(self._cost, (label, "spent"), price.of(usage))

    def chatted(self, result: Chatted) -> None:
        """Count an answer that a client was told, at its end, and what it spared."""
        label = self._label(result.model)
        add = self._add
        add(self.answers, (label, result.source), 1)
        usage = None if result.source == "upstream" else result.usage
        if usage is None:
            return
        add(self.chat_tokens, (label, "prompt", "cache"), usage.prompt_tokens)
        add(self.chat_tokens, (label, "completion", "cache"), usage.completion_tokens)
        if result.price is not None:
            add(self._cost, (label, "saved"), result.price.of(usage))

    def first_chunk(self, model: str, source: str, seconds: float) -> None:
        """Count the time to the first chunk of a stream."""
        self.first_chunk_seconds.labels(self._label(model), source).observe(seconds)

    def new_fingerprint(self, model: str) -> None:
        """Count a fingerprint that was never seen before."""
        self.new_fingerprints.labels(self._label(model)).inc()
