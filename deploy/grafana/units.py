"""Numbers as the board tells them: in the units of its panels, in few characters."""

import time
from collections.abc import Callable, Mapping


def told(unit: str, value: float) -> str:
    """Return a number with its unit; `unit` is Grafana's name for it."""
    return _UNITS.get(unit, _plain)(value)


def _plain(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _seconds(value: float) -> str:
    for size, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.2g} s"


def _bytes(value: float) -> str:
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.0f} B"


def _dollars(value: float) -> str:
    return f"${value:.2f}" if abs(value) >= 1 or not value else f"${value:.2g}"


def _ago(value: float) -> str:
    minutes = (time.time() - value / 1000) / 60
    return f"{minutes:.0f} minutes ago" if minutes < 120 else f"{minutes / 60:.0f} hours ago"


def _each_second(what: str) -> Callable[[float], str]:
    return lambda value: f"{_plain(value)} {what}"


_UNITS: Mapping[str, Callable[[float], str]] = {
    "s": _seconds,
    "bytes": _bytes,
    "currencyUSD": _dollars,
    "percentunit": lambda value: f"{100 * value:.3g} %",
    "dateTimeFromNow": _ago,
    "reqps": _each_second("req/s"),
    "cps": _each_second("/s"),
    "ops": _each_second("op/s"),
}
