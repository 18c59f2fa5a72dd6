"""The collectors of chats; `metrics` has all others, and holds these."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from gateway.chat.chatted import Chatted, price_of
from gateway.chat_route import ChatRoute
from gateway.completion import Usage
from gateway.metrics.tally import SECONDS, BulkHistogram, Tally


class ChatMetrics:
    """What chats were told, and what it took."""

    def __init__(
        self,
        registry: CollectorRegistry,
        tally: Tally,
        label: Callable[[str], str],
        cost: Counter,
    ) -> None:
        """`label` turns a model's name into the config's; `cost` counts vectors too."""
        self._label = label
        self._cost = cost
        self._tally = tally
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
        self.first_chunk_seconds = BulkHistogram(
            "gateway_chat_first_chunk_seconds",
            "From a checked request to the first chunk of its stream.",
            ["model", "result"],
            buckets=SECONDS,
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
        label, price, add = self._label(route.name), price_of(route), self._tally.add
        add(self.chat_tokens, (label, "prompt", "upstream"), usage.prompt_tokens)
        add(self.chat_tokens, (label, "completion", "upstream"), usage.completion_tokens)
        if price is not None:
            add(self._cost, (label, "spent"), price.of(usage))

    def chatted(self, result: Chatted) -> None:
        """Count an answer that a client was told, at its end, and what it spared."""
        label = self._label(result.model)
        add = self._tally.add
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
        self._tally.observe(self.first_chunk_seconds, (self._label(model), source), seconds)

    def new_fingerprint(self, model: str) -> None:
        """Count a fingerprint that was never seen before."""
        self.new_fingerprints.labels(self._label(model)).inc()
