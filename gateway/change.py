"""Which config is in effect, and what became of the attempts to change it: as told to operators."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of the config of a gateway since it began.

    All its processes are told the same, so that whichever is asked says so.
    """

    hash: str = ""
    """Of what is in effect, secrets masked: equal for equal configs."""
    since: float = 0.0
    """Unix time at which it came into effect."""
    taken: int = 0
    """Reloads that have succeeded."""
    refused: int = 0
    """Reloads that have failed, and changed nothing."""
    failed: bool = False
    """Whether the last reload did."""

    def shown(self) -> dict[str, Any]:
        """Return what `/health/ready` says of it: not why one failed, since all may read it."""
        last = "failed" if self.failed else "ok" if self.taken else None
        return {"hash": self.hash, "since": round(self.since, 3), "last_reload": last}


class ChangeCollector(Collector):
    """Writes a Change, and whether its process is being stopped, for Prometheus.

    Not a collector of counters of its own: of several workers, each knows the figures of all.
    """

    def __init__(self, change: Callable[[], Change], draining: Callable[[], bool]) -> None:
        self._change = change
        self._draining = draining

    def collect(self) -> Iterator[Metric]:
        """See Collector.collect."""
        change = self._change()
        reloads = CounterMetricFamily(
            "gateway_config_reloads", "Reloads of the config by result.", labels=["result"]
        )
        reloads.add_metric(["ok"], change.taken)
        reloads.add_metric(["failed"], change.refused)
        yield reloads
        yield GaugeMetricFamily(
            "gateway_config_last_reload_success",
            "Whether the last reload of the config succeeded, or none was asked for.",
            value=not change.failed,
        )
        yield GaugeMetricFamily(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When the config in effect came into effect.",
            value=change.since,
        )
        info = GaugeMetricFamily(
            "gateway_config_info", "The config in effect, secrets masked.", labels=["hash"]
        )
        info.add_metric([change.hash], 1)
        yield info
        yield GaugeMetricFamily(
            "gateway_draining",
            "Whether this gateway is being stopped and sees out what runs.",
            value=self._draining(),
        )
