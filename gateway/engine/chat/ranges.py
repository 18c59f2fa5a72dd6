"""Numbers between two bounds, as GBNF.

A bound is a decimal fraction; the grammar compares digit by digit, so it is exact. Numbers without
bounds are JSON's, with so many digits that a double can hold them.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from gateway.engine.chat.rules import Rules, UnsupportedError, either, literal

_FRACTION_DIGITS = 16
_WHOLE = '("0" | [1-9] [0-9]{0,14})'
_FRACTION = '("." [0-9]{1,16})'
ANY_INTEGER = f'"-"? {_WHOLE}'
ANY_NUMBER = f'"-"? {_WHOLE} {_FRACTION}? ([eE] [-+]? [0-9]{{1,2}})?'
_LARGEST = Decimal(10) ** 15
"""Whole numbers have at most 15 digits, which every JSON reader keeps."""
_EMPTY = "no number lies between 'minimum' and 'maximum'"


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range of numbers; `strict`: the bound itself is outside."""

    value: Decimal
    strict: bool = False

    def negated(self) -> "Bound":
        """Return the bound as it is seen from the other side of zero."""
        return Bound(self.value.copy_negate(), self.strict)


_LOWEST = Bound(-_LARGEST, strict=True)
_HIGHEST = Bound(_LARGEST, strict=True)


def integers(low: Bound | None, high: Bound | None, rules: Rules) -> str:
    """Return an expression for the whole numbers between two bounds; None is no bound."""
    if low is None and high is None:
        return rules.add(ANY_INTEGER)
    first = _least(low or _LOWEST)
    last = -_least((high or _HIGHEST).negated())
    if first > last:
        raise UnsupportedError(_EMPTY)
    options = []
    if first < 0:
        options.append('"-" ' + _wholes(max(1, -last), -first))
    if last >= 0:
        options.append(_wholes(max(0, first), last))
    return rules.add(either(options))


def _least(low: Bound) -> int:
    """Return the least whole number that is not below the bound and has at most 15 digits."""
    value = max(low.value, 1 - _LARGEST)
    whole = int(value.to_integral_value(ROUND_CEILING))
    return whole + 1 if low.strict and whole == low.value else whole


def _wholes(first: int, last: int) -> str:
    """Return the numbers from `first` to `last`, neither negative, without leading zeros."""
    options = []
    for digits in range(len(str(first)), len(str(last)) + 1):
        low = max(first, 10 ** (digits - 1) if digits > 1 else 0)
        options.append(_same_length(str(low), str(min(last, 10**digits - 1))))
    return either(options)


def _same_length(low: str, high: str) -> str:
    """Return the digit strings between two of the same length."""
    if not low:
        return '""'
    if set(low) == {"0"} and set(high) == {"9"}:
        return f"[0-9]{{{len(low)}}}"
    first, last = int(low[0]), int(high[0])
    nines, zeros = "9" * (len(low) - 1), "0" * (len(low) - 1)
    if first == last:
        return _then(low[0], _same_length(low[1:], high[1:]))
    options = []
    if low[1:] != zeros:
        options.append(_then(low[0], _same_length(low[1:], nines)))
        first += 1
    tail = []
    if high[1:] != nines:
        tail.append(_then(high[0], _same_length(zeros, high[1:])))
        last -= 1
    if first <= last:
        options.append(_then(f"{first}-{last}", _same_length(zeros, nines)))
    return either(options + tail)


def _then(digits: str, rest: str) -> str:
    return f"[{digits}]" if rest == '""' else f"[{digits}] {rest}"


def numbers(low: Bound | None, high: Bound | None, rules: Rules) -> str:
    """Return an expression for the numbers between two bounds, written without an exponent."""
    if low is None and high is None:
        return rules.add(ANY_NUMBER)
    low, high = _near(low or _LOWEST), _near((high or _HIGHEST).negated()).negated()
    zero = Bound(Decimal(0))
    options = []
    if low.value < 0:
        nearest = high.negated() if high.value <= 0 else zero
        options += [f'"-" {text}' for text in _positives(nearest, low.negated())]
    if high.value >= 0:
        options += _positives(low if low.value >= 0 else zero, high)
    if not options:
        raise UnsupportedError(_EMPTY)
    return rules.add(either(options))


def _near(low: Bound) -> Bound:
    """Return the lower bound, or the lowest that digits are written for."""
    if max(0, -int(low.value.as_tuple().exponent)) > _FRACTION_DIGITS:
        raise UnsupportedError(f"a bound in it has more than {_FRACTION_DIGITS} decimal places")
    return max(low, _LOWEST, key=lambda bound: bound.value)


def _positives(low: Bound, high: Bound) -> list[str]:
    """Return options for the numbers between two bounds that are not negative."""
    first, after = _parts(low.value)
    last, before = _parts(high.value)
    if first == last:
        return _beginning(first, _Fractions(low.strict, high.strict), after, before)
    if first > last:
        return []
    options = _beginning(first, _Fractions(low.strict, False), after, None)
    if first + 1 < last:
        options.append(f"{_wholes(first + 1, last - 1)} {_FRACTION}?")
    return options + _beginning(last, _Fractions(False, high.strict), None, before)


def _parts(value: Decimal) -> tuple[int, str]:
    """Return the whole part, and the digits behind the point up to the last that is not 0."""
    whole, _, fraction = f"{value:f}".partition(".")
    return int(whole), fraction.rstrip("0")


def _beginning(whole: int, fractions: "_Fractions", low: str | None, high: str | None) -> list[str]:
    """Return options for the numbers with this whole part."""
    options = [literal(str(whole))] if fractions.may_end(low, high) else []
    more = fractions.more(low, high)
    if more:
        options.append(f"{literal(f'{whole}.')} {either(more)}")
    return options


class _Fractions:
    """Digits behind a point, compared with those of two bounds.

    `low` and `high` are what is left of the bounds' digits while the number is equal to them so
    far; None once it has left them behind, or where there is no bound.
    """

    def __init__(self, low_strict: bool, high_strict: bool) -> None:
        self._low_strict = low_strict
        self._high_strict = high_strict

    def may_end(self, low: str | None, high: str | None) -> bool:
        """Return whether the number lies between the bounds if no digit follows."""
        above = not low and not (low == "" and self._low_strict)
        return above and not (high == "" and self._high_strict)

    def more(self, low: str | None, high: str | None) -> list[str]:
        """Return options for one digit or more."""
        if high == "":
            return []
        if high is None and not low:
            above = low == "" and self._low_strict
            return ['"0"{0,15} [1-9] [0-9]{0,15}' if above else f"[0-9]{{1,{_FRACTION_DIGITS}}}"]
        least = int(low[0]) if low else 0
        most = int(high[0]) if high else 9
        digits: dict[tuple[str | None, str | None], list[int]] = {}
        for digit in range(least, most + 1):
            left = (
                low[1:] if low is not None and digit == least else None,
                high[1:] if high is not None and digit == most else None,
            )
            digits.setdefault(left, []).append(digit)
        return [
            f"[{found[0]}-{found[-1]}] {either(rest)}"
            for left, found in digits.items()
            if (rest := self._rest(*left))
        ]

    def _rest(self, low: str | None, high: str | None) -> list[str]:
        return (['""'] if self.may_end(low, high) else []) + self.more(low, high)
