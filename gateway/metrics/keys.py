"""The collectors of keys and their limits; `metrics` has all others, and holds these."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.metrics.tally import Tally
from gateway.types import Caller


class KeyMetrics:
    """What each key of the config has had made, and whether limits are counted together."""

    def __init__(self, registry: CollectorRegistry, tally: Tally) -> None:
        self._tally = tally
        self.tokens = Counter(
            "gateway_key_tokens",
            "Tokens that upstreams were asked for, by the key that asked first.",
            ["key"],
            registry=registry,
        )
        self.cost = Counter(
            "gateway_key_cost_usd",
            "US dollars for them, where a price is known.",
            ["key"],
            registry=registry,
        )
        self.shared = Gauge(
            "gateway_limits_shared",
            "Workers that enforce a part of each limit, as they cannot count together.",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def spent(self, caller: Caller, tokens: int, dollars: float) -> None:
        """Count an upstream's answer for who began the call."""
        self._tally.add(self.tokens, (caller.name,), tokens)
        if dollars:
            self._tally.add(self.cost, (caller.name,), dollars)

    def share(self, shared: bool) -> None:
        """Take note whether this worker counts alone."""
        self.shared.set(shared)
