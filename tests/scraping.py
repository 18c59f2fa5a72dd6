"""The text of /metrics, read as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics.collectors import Metrics

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by name and labels."""


def text_of(metrics: Metrics) -> str:
    """Return what a process would answer that is the only one."""
    return b"".join(metrics.page(None)).decode()


def series(text: str) -> Series:
    """Return every sample of a page."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def value(text: str, name: str, **labels: str) -> float | None:
    """Return the sum of the samples that have these labels; None where there is none."""
    found = [v for (n, has), v in series(text).items() if n == name and labels.items() <= set(has)]
    return sum(found) if found else None


def falls(before: str, after: str) -> Series:
    """Return what of counters and histograms has become less, or is gone."""
    kinds = {f.name: f.type for f in text_string_to_metric_families(before)}
    now = series(after)

    def counts(name: str) -> bool:
        family = name.removesuffix("_total").removesuffix("_bucket")
        family = family.removesuffix("_count").removesuffix("_sum")
        return kinds.get(family) in ("counter", "histogram")

    return {
        key: then
        for key, then in series(before).items()
        if counts(key[0]) and now.get(key, -1.0) < then
    }
