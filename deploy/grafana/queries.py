"""PromQL for the board: the few forms in which its panels ask."""

INSTANCE = 'instance=~"$instance"'
"""A variable of the board; every query has it."""
MODEL = 'model=~"$model"'
"""Another one, for what is told by model."""

ASKED = ('operation=~"embeddings|chat"', MODEL)
"""Requests for vectors and chats, not those of browsers, health checks and Prometheus itself."""


def of(metric: str, *matchers: str) -> str:
    """Return the selector of a metric on the chosen instances."""
    chosen = ", ".join((INSTANCE, *matchers))
    return f"{metric}{{{chosen}}}"


def now(metric: str, *matchers: str, by: str = "", how: str = "sum") -> str:
    """Return a gauge, put together over instances."""
    return f"{how}{_by(by)}({of(metric, *matchers)})"


def rate(counter: str, *matchers: str, by: str = "") -> str:
    """Return how much a counter rises in a second."""
    return f"sum{_by(by)}(rate({of(counter, *matchers)}[$__rate_interval]))"


def risen(counter: str, *matchers: str, by: str = "") -> str:
    """Return how much a counter rises in the time that the board shows."""
    return f"sum{_by(by)}(increase({of(counter, *matchers)}[$__range]))"


def events(counter: str, *matchers: str, by: str = "") -> str:
    """Return how often something rare happens, from one point of a line to the next."""
    return f"sum{_by(by)}(increase({of(counter, *matchers)}[$__rate_interval]))"


def quantile(share: float, histogram: str, *matchers: str, by: str = "") -> str:
    """Return the value under which this share of the observations lie."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', *matchers, by=labels)})"


def quantiles(label: str, histogram: str, *matchers: str, low: float = 0.5) -> dict[str, str]:
    """Return two lines for each value of a label, named by it: `low`, and 99 in 100."""
    return {
        f"{{{{{label}}}}} {100 * share:g} %": quantile(share, histogram, *matchers, by=label)
        for share in (low, 0.99)
    }


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""
