"""The picture of `gateway drift`: how far answers lie from the kept ones, text by text, as SVG."""

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10

import msgspec

from gateway.commands.drift_report import Bar, ModelReport, NoFigures, Report, bars
from gateway.commands.drift_words import heading, sentence, shortened, small
from gateway.commands.strangers import plain

_WIDTH, _LEFT, _RIGHT = 880, 284, 40
_ROW, _HEAD, _FOOT, _GAP = 44, 84, 40, 28
_ZERO, _START = _LEFT + 16, _LEFT + 52
"""Where exact zeros stand, and where the scale begins."""
_HIGH, _WIDE = 34, 10
"""Of the highest bar, and about of each."""
_LABELS = 9
"""Powers of ten that have room beside each other."""
_STYLE = """
  svg { --paper: #fff; --ink: #16191d; --soft: #555d66; --line: #dfe2dd; --bar: #0f8a7e;
        --far: #ad2320; --band: #0f8a7e22; background: var(--paper);
        font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #1a1d21; --ink: #eceef0; --soft: #a2abb5; --line: #353b42; --bar: #3fc2b1;
          --far: #ff948c; --band: #3fc2b128 } }
  text { fill: var(--ink) }
  .soft { fill: var(--soft); font-size: 12px }
  .name { font-size: 17px; font-weight: 600 }
  .line { stroke: var(--line) }
  .limit { stroke: var(--far); stroke-dasharray: 4 4 }
  .limit-name { fill: var(--far); font-size: 12px }
  .band { fill: var(--band) }
  .bar { fill: var(--bar) }
  .far { fill: var(--far) }
"""


class _Scale(msgspec.Struct, frozen=True):
    """A scale of powers of ten, with a place for exactly 0 before it."""

    low: int
    high: int
    """Powers of ten."""

    def x(self, distance: float) -> float:
        """Return where a distance above 0 stands."""
        return round(_START + (log10(distance) - self.low) * self._power, 1)

    @property
    def parts(self) -> int:
        """How many bars a power of ten has."""
        return max(1, round(self._power / _WIDE))

    @property
    def _power(self) -> float:
        """Width of a power of ten."""
        return (_WIDTH - _RIGHT - _START) / (self.high - self.low)


def picture(reports: Sequence[Report]) -> str:
    """Return an SVG with a panel for each model; it follows light and dark."""
    heights = [_height(told) for told in reports]
    panels, top = [], _GAP
    for told, height in zip(reports, heights, strict=True):
        panels.append(f'<g transform="translate(0 {top})">{"".join(_panel(told))}</g>')
        top += height + _GAP
    title = "Distances of fresh answers from the kept ones"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" '
        f'height="{top}" role="img"><title>{title}</title><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="var(--paper)"/>{"".join(panels)}</svg>\n'
    )


def _height(told: Report) -> int:
    return _HEAD // 2 if isinstance(told, NoFigures) else _HEAD + _FOOT + _ROW * len(told.texts)


def _panel(told: Report) -> Iterator[str]:
    yield _words(24, 8, heading(told), "name")
    if isinstance(told, NoFigures):
        yield _words(24, 30, plain(told.why), "soft")
        return
    yield _words(24, 30, sentence(told), "soft")
    scale, bottom = _scale(told), _HEAD + _ROW * len(told.texts)
    yield from _limits(told, scale, bottom)
    yield from _axis(scale, bottom)
    spread = [bars(text.distances, scale.parts) for text in told.texts]
    most = max(bar.count for row in spread for bar in row)
    for place, (text, row) in enumerate(zip(told.texts, spread, strict=True)):
        base = _HEAD + _ROW * (place + 1)
        yield f'<path class="line" d="M24 {base}H{_WIDTH - _RIGHT}"/>'
        yield _words(24, base - 14, shortened(text.text))
        for bar in row:
            if bar.count:
                yield _bar(bar, scale, base, _HIGH * bar.count / most, told.threshold)


def _scale(told: ModelReport) -> _Scale:
    """Return the scale that has all distances, the noise and the limit on it."""
    every = [each for text in told.texts for each in text.distances]
    every += [told.noise, told.threshold]
    above = [each for each in every if each > 0.0]
    return _Scale(floor(log10(min(above))) - 1, ceil(log10(max(above))) + 1)


def _limits(told: ModelReport, scale: _Scale, bottom: int) -> Iterator[str]:
    top = _HEAD - 16
    if told.noise:
        wide = scale.x(told.noise) - _LEFT
        yield f'<rect class="band" x="{_LEFT}" y="{top}" width="{wide}" height="{bottom - top}"/>'
        yield _words(_LEFT + 4, top - 6, f"noise, to {small(told.noise)}", "soft")
    limit = scale.x(told.threshold)
    yield f'<path class="limit" d="M{limit} {top}V{bottom}"/>'
    yield _words(limit, top - 6, f"drift from {small(told.threshold)}", "limit-name", "middle")


def _axis(scale: _Scale, bottom: int) -> Iterator[str]:
    yield _words(_ZERO, bottom + 18, "0", "soft", "middle")
    every = -(-(scale.high - scale.low) // _LABELS)
    for power in range(scale.low, scale.high + 1, every):
        at = scale.x(10.0**power)
        yield f'<path class="line" d="M{at} {_HEAD}V{bottom + 4}"/>'
        yield _words(at, bottom + 18, f"1e{power}" if power else "1", "soft", "middle")
    yield _words(_WIDTH - _RIGHT, bottom + 36, "distance, 1 - cosine", "soft", "end")


def _bar(bar: Bar, scale: _Scale, base: int, height: float, threshold: float) -> str:
    height = max(2.0, round(height, 1))
    if bar.high == 0.0:
        at, wide, said = _ZERO - _WIDE / 2, float(_WIDE), "equal bit for bit"
    else:
        at, wide = scale.x(bar.low), scale.x(bar.high) - scale.x(bar.low) - 1
        said = f"{small(bar.low)} to {small(bar.high)}"
    far = " far" if bar.low >= threshold else ""
    return (
        f'<rect class="bar{far}" x="{at:.1f}" y="{base - height}" width="{wide:.1f}" '
        f'height="{height}"><title>{bar.count:,}: {said}</title></rect>'
    )


def _words(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
