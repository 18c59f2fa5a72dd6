"""Whether llama.cpp can be given a grammar: its own parser may hang, eat all memory, or print it.

It counts {5,2} as 2^64 repetitions, takes time that doubles with each rule to look for left
recursion, does not find the hidden kind and then grows for ever, and writes what it cannot read to
standard error, which holds words of the request. So everything is proved here first.
"""

from collections.abc import Iterable, Sequence

from gateway.engine.chat.faults import GrammarError
from gateway.engine.chat.gbnf import (
    MAX_DEPTH,
    Characters,
    Group,
    Node,
    Reference,
    Repeat,
    Rules,
    read_rules,
)

MAX_TEXT = 1 << 20
"""Characters of a grammar."""
MAX_ELEMENTS = 500_000
"""Characters and references, with repetitions written out as llama.cpp does."""
MAX_RULES = 20_000
"""Rules, counted the same way."""
MAX_WAYS = 100_000
"""Ways of going from a rule to the first character of its texts."""
MAX_SKIPS = 50
"""Parts in a row that may be left out. llama.cpp follows what each could begin at once, in time
that grows with the third power and with the vocabulary, and cannot be stopped within a token:
measured with 32,000 words, up to 1.8 s for a token with 90 parts, and ten seconds with 300."""


def check_grammar(text: str) -> None:
    """Raise GrammarError unless llama.cpp can read and follow this grammar from the rule `root`."""
    if len(text) > MAX_TEXT:
        raise GrammarError(f"is longer than {MAX_TEXT:,} characters")
    if "\0" in text or not _encodable(text):
        raise GrammarError("holds characters that are none")
    rules = read_rules(text)
    if "root" not in rules:
        raise GrammarError("has no rule named root")
    _check_size(rules)
    _Ways(rules).check()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_size(rules: Rules) -> None:
    elements = rules_made = 0
    for rule in rules.values():
        _, more, made = _size(rule)
        elements, rules_made = elements + more, rules_made + made
        if elements > MAX_ELEMENTS or rules_made > MAX_RULES:
            raise GrammarError(
                f"comes to more than {MAX_RULES:,} rules or {MAX_ELEMENTS:,} characters with its"
                " repetitions"
            )


def _size(node: Node) -> tuple[int, int, int]:
    """Return elements where it stands, those and its made rules' elements, and made rules."""
    if isinstance(node, Characters):
        return node.count, node.count, 0
    if isinstance(node, Reference):
        return 1, 1, 0
    if isinstance(node, Repeat):
        here, elements, made = _size(node.item)
        elements += here * (node.low + node.optional) + 3 * node.optional
        return here * node.low + 1, elements, made + node.optional
    sizes = [_size(item) for way in node.ways for item in way]
    elements = sum(size[1] for size in sizes) + len(node.ways)
    return 1, elements, sum(size[2] for size in sizes) + 1


class _Ways:
    """Follows rules to their first characters: each must get there, and in not too many ways."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._known: dict[str, tuple[bool, int]] = {}
        self._open: list[str] = []
        self._skips: dict[str, int] = {}
        self._tails: dict[str, int] = {}

    def check(self) -> None:
        if sum(self._rule(name)[1] for name in self._rules) > MAX_WAYS:
            raise GrammarError(f"is ambiguous in more than {MAX_WAYS:,} ways")
        for rule in self._rules.values():
            self._check_runs(rule)

    def _check_runs(self, node: Node) -> None:
        """Look for too many parts in a row that may be left out, at any place."""
        if isinstance(node, Repeat):
            self._check_runs(node.item)
        elif isinstance(node, Group):
            for way in node.ways:
                self._run(way)
                for item in way:
                    self._check_runs(item)

    def _run(self, items: Sequence[Node]) -> int:
        """Return how many parts in a row may be left out at the end of a sequence."""
        run = 0
        for item in items:
            skips = run + self._skipped(item)
            if skips > MAX_SKIPS:
                raise GrammarError(f"has more than {MAX_SKIPS} parts in a row that may be left out")
            tail = self._tail(item)
            run = max(skips, tail) if self._node(item)[0] else tail
        return run

    def _skipped(self, node: Node) -> int:
        """Return how many parts may be left out, at most, on the way to a first character."""
        if isinstance(node, Characters):
            return 0
        if isinstance(node, Reference):
            if node.name not in self._skips:
                self._skips[node.name] = self._skipped(self._rules[node.name])
            return self._skips[node.name]
        if isinstance(node, Repeat):
            within = self._skipped(node.item)
            if self._node(node.item)[0]:
                return max(1, within) * (node.low + node.optional)
            return within + (node.low == 0)
        return max((self._leading(way) for way in node.ways), default=0)

    def _leading(self, items: Sequence[Node]) -> int:
        skips = 0
        for item in items:
            skips += self._skipped(item)
            if not self._node(item)[0]:
                break
        return skips

    def _tail(self, node: Node) -> int:
        """Return how many parts in a row may be left out at the end of what is not."""
        if isinstance(node, Characters):
            return 0
        if isinstance(node, Reference):
            if node.name not in self._tails:
                self._tails[node.name] = 0  # what holds itself is no longer for that
                self._tails[node.name] = self._tail(self._rules[node.name])
            return self._tails[node.name]
        if isinstance(node, Repeat):
            again = self._skipped(Repeat(node.item, max(0, node.low - 1), _one_less(node.high)))
            return self._tail(node.item) + (again if node.high != 1 else 0)
        return max((self._run(way) for way in node.ways), default=0)

    def _rule(self, name: str) -> tuple[bool, int]:
        """Return whether a rule's text may be empty, and in how many ways it begins."""
        if name in self._known:
            return self._known[name]
        if name in self._open:
            raise GrammarError("is left-recursive: a rule begins with itself")
        if len(self._open) > MAX_DEPTH:
            raise GrammarError(f"has more than {MAX_DEPTH} rules that begin with each other")
        self._open.append(name)
        found = self._known[name] = self._group(self._rules[name].ways)
        self._open.pop()
        return found

    def _group(self, ways: Sequence[Sequence[Node]]) -> tuple[bool, int]:
        found = [self._sequence(way) for way in ways]
        return any(empty for empty, _ in found), _bounded(count for _, count in found)

    def _sequence(self, items: Sequence[Node]) -> tuple[bool, int]:
        counts = []
        for item in items:
            empty, count = self._node(item)
            counts.append(count)
            if not empty:
                return False, _bounded(counts)
        return True, _bounded(counts)

    def _node(self, node: Node) -> tuple[bool, int]:
        if isinstance(node, Characters):
            return node.count == 0, 1
        if isinstance(node, Reference):
            return self._rule(node.name)
        if isinstance(node, Group):
            return self._group(node.ways)
        empty, count = self._node(node.item)
        times = node.low + node.optional if empty else 1
        return empty or node.low == 0, _bounded([count * times])


def _one_less(high: int | None) -> int | None:
    return None if high is None else max(0, high - 1)


def _bounded(counts: Iterable[int]) -> int:
    """Add up, and refuse what is too much as soon as it is."""
    total = 1 + sum(counts)
    if total > MAX_WAYS:
        raise GrammarError(f"is ambiguous in more than {MAX_WAYS:,} ways")
    return total
