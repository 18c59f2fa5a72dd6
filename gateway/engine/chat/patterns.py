"""Regular expressions of JSON schemas as GBNF, for texts inside a JSON string.

Takes what is regular and plain: characters, sets, groups, alternatives, counts, and `^` and `$` at
the two ends; a pattern without them may be found anywhere, as JSON schema says. Everything else is
refused, never read as something near it.
"""

from gateway.engine.chat.rules import (
    Range,
    Rules,
    UnsupportedError,
    characters,
    either,
    inverted,
    repeat,
)

MAX_PATTERN = 1000
_DIGIT: list[Range] = [(0x30, 0x39)]
_WORD: list[Range] = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: list[Range] = [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x2028, 0x2029), (0xFEFF, 0xFEFF)]
_LINE_ENDS: list[Range] = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B}
_HEX = {"x": 2, "u": 4}
_ANY = inverted([])


def pattern(source: str, rules: Rules) -> str:
    """Return an expression for the texts in which the pattern is found.

    Raises UnsupportedError for what cannot be had, and for what is no regular expression.
    """
    if len(source) > MAX_PATTERN:
        raise UnsupportedError(f"a pattern in it has more than {MAX_PATTERN} characters")
    return _Reader(source, rules).whole()


def any_character() -> str:
    """Return an expression for one character of a JSON string."""
    return characters(_ANY)


class _Reader:
    """Walks through a pattern once, from left to right."""

    def __init__(self, source: str, rules: Rules) -> None:
        self._source = source
        self._rules = rules
        self._at = 0

    def whole(self) -> str:
        """Return the expression for the whole pattern."""
        options = [self._branch()]
        while self._take("|"):
            options.append(self._branch())
        if self._at < len(self._source):
            raise self._refusal("a ')' without its '('")
        return either(options)

    def _branch(self) -> str:
        """Return one alternative of the outermost level, with what may stand around it."""
        free = f"{self._rules.add(any_character())}*"
        before = "" if self._take("^") else free
        body = self._sequence()
        after = "" if self._take("$") else free
        return " ".join(filter(None, (before, body, after))) or '""'

    def _sequence(self) -> str:
        items = []
        while self._at < len(self._source) and self._source[self._at] not in "|)$":
            items.append(self._counted(self._atom()))
        return " ".join(items)

    def _atom(self) -> str:
        character = self._next()
        if character == "(":
            return self._group()
        if character == "[":
            return characters(self._set())
        if character == ".":
            return characters(inverted(_LINE_ENDS))
        if character == "\\":
            return characters(self._escape())
        if character in "*+?{}^]":
            raise self._refusal(f"'{character}' where it has no meaning")
        return characters([(ord(character), ord(character))])

    def _group(self) -> str:
        if self._take("?") and not self._take(":"):
            raise self._refusal("a group that looks around, has a name or sets flags")
        options = [self._sequence()]
        while self._take("|"):
            options.append(self._sequence())
        if not self._take(")"):
            raise self._refusal("an open '(', or '$' inside a group")
        return "(" + " | ".join(option or '""' for option in options) + ")"

    def _counted(self, atom: str) -> str:
        if self._take("*"):
            return self._repeated(atom, 0, None)
        if self._take("+"):
            return self._repeated(atom, 1, None)
        if self._take("?"):
            return self._repeated(atom, 0, 1)
        if not self._take("{"):
            return atom
        body, closed, _ = self._source[self._at :].partition("}")
        first, comma, second = body.partition(",")
        if not closed or not _is_count(first) or not (second == "" or _is_count(second)):
            raise self._refusal("a '{' that is no count")
        self._at += len(body) + 1
        most = int(second) if second else None if comma else int(first)
        if most is not None and most < int(first):
            raise self._refusal("a count whose end is below its beginning")
        return self._repeated(atom, int(first), most)

    def _repeated(self, atom: str, least: int, most: int | None) -> str:
        # A lazy count finds the same texts; a possessive one, or a count of a count, may not.
        self._take("?")
        if self._at < len(self._source) and self._source[self._at] in "*+?{":
            raise self._refusal("a count behind a count")
        return repeat(atom, least, most, self._rules) or '""'

    def _set(self) -> list[Range]:
        """Return the characters of a `[...]`, whose `[` has been read."""
        inverse = self._take("^")
        ranges: list[Range] = []
        while not self._take("]"):
            first = self._member()
            if self._ahead("-") and not self._ahead("-]"):
                self._at += 1
                last = self._member()
                if not _is_one(first) or not _is_one(last) or first[0][0] > last[0][0]:
                    raise self._refusal("a range of characters that is none")
                first = [(first[0][0], last[0][0])]
            ranges += first
        return inverted(ranges) if inverse else ranges

    def _member(self) -> list[Range]:
        character = self._next()
        if character == "\\":
            return [(0x08, 0x08)] if self._take("b") else self._escape()
        return [(ord(character), ord(character))]

    def _escape(self) -> list[Range]:
        """Return what stands for `\\x`, whose backslash has been read."""
        letter = self._next()
        if letter.lower() in _CLASSES:
            ranges = _CLASSES[letter.lower()]
            return ranges if letter.islower() else inverted(ranges)
        if letter in _CONTROLS:
            return [(_CONTROLS[letter], _CONTROLS[letter])]
        if letter in _HEX:
            return self._number(_HEX[letter])
        if letter.isalnum():
            raise self._refusal(f"the escape '\\{letter}'")
        return [(ord(letter), ord(letter))]

    def _number(self, digits: int) -> list[Range]:
        text = self._source[self._at : self._at + digits]
        if len(text) < digits or not set(text) <= set("0123456789abcdefABCDEF"):
            raise self._refusal("an escape without its hexadecimal digits")
        self._at += digits
        code = int(text, 16)
        if 0xD800 <= code <= 0xDFFF:
            raise self._refusal("half of a UTF-16 pair")
        return [(code, code)]

    def _next(self) -> str:
        if self._at >= len(self._source):
            raise self._refusal("an end where more must come")
        self._at += 1
        return self._source[self._at - 1]

    def _ahead(self, text: str) -> bool:
        return self._source.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        found = self._ahead(text)
        self._at += len(text) if found else 0
        return found

    def _refusal(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"a pattern in it has {what}")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _is_one(ranges: list[Range]) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
