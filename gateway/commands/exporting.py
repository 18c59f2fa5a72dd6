"""From a store to a file: `gateway cache export`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.cache.entry import Entry
from gateway.cache.facts import ScopeFact
from gateway.cache.keys import Key, check_value
from gateway.cache.record import CorruptRecordError, expires, unpack
from gateway.cache.scopes import namespace
from gateway.commands.files import replacing
from gateway.commands.opened import CommandError, Opened, check_of, held, known_secret, opened
from gateway.commands.progress import Progress
from gateway.commands.selection import Selection
from gateway.commands.spool import Spool
from gateway.config import Config


@dataclass(slots=True)
class Exporting:
    """What became of the entries that a store holds."""

    exported: int = 0
    over: int = 0
    """Expired, or purged and not removed yet."""
    damaged: int = 0
    unknown: int = 0
    """Of scopes of which the store does not know the model."""
    answers: int = 0
    """Of chats: sealed, and no vectors."""


async def export(
    config: Config, selection: Selection, path: Path, progress: Progress, now: float
) -> Exporting:
    """Write the vectors of the store that decides, of current generations, into a file.

    Raises CommandError, and OSError where the disk is full; then there is no new file.
    """
    async with opened(config.cache) as stores:
        store = stores[-1]
        if store.missing:
            raise CommandError(f"{store.address}: there is nothing to export: no such file yet")
        facts = await store.ask(store.store.facts)
        check = _check(store, config, facts)
        found = await held(store, facts)
        counts = Exporting(unknown=sum(each.usage.entries for each in found if each.fact is None))
        known = {each.scope: each.fact for each in found if each.fact is not None}
        chosen = selection.of(config, known)
        progress.total = sum(
            each.usage.entries for each in found if each.current and each.scope in chosen
        )
        with replacing(path) as out, Spool(path.parent) as spool:
            for scope, fact in sorted(chosen.items()):
                sound = _Sound(fact, now, config.cache.ttl, counts)
                async for batch in store.scan(namespace(scope, fact.generation)):
                    spool.put(scope, fact, sound.among(batch))
                    progress.add(len(batch))
            counts.exported = spool.finish(out, check)
            if not counts.exported:
                raise CommandError(f"{store.address}: there is nothing to export{_but(counts)}")
        return counts


def _but(counts: Exporting) -> str:
    """Return what there is all the same, to be said behind that there is nothing."""
    there = {"entries of unknown models": counts.unknown, "answers to chats": counts.answers}
    return "".join(f", but {count:,} {what}" for what, count in there.items() if count)


def _check(store: Opened, config: Config, facts: Mapping[str, bytes]) -> bytes:
    """Return what the file is to show of the secret that its keys were made with."""
    check = check_of(facts)
    if check is not None:
        return check
    secret = known_secret(config.cache, facts)
    if secret is None:
        raise CommandError(f"{store.address}: does not say which secret it was made with")
    return check_value(secret)


class _Sound:
    """The vectors of one scope that are to be exported; counts the other entries."""

    def __init__(self, fact: ScopeFact, now: float, ttl: float | None, counts: Exporting) -> None:
        self._fact = fact
        self._width = fact.width
        self._now = now
        self._ttl = ttl
        self._counts = counts

    def among(self, values: Mapping[Key, bytes]) -> Iterator[tuple[Key, Entry]]:
        for key, value in values.items():
            try:
                entry = unpack(key, value, "")
            except CorruptRecordError:
                self._counts.damaged += 1
                continue
            if entry.sealed:
                self._counts.answers += 1
                continue
            self._width = self._width or entry.width
            if entry.width != self._width:
                self._counts.damaged += 1
            elif self._is_over(key, entry):
                self._counts.over += 1
            else:
                yield key, entry

    def _is_over(self, key: Key, entry: Entry) -> bool:
        if self._ttl is not None and expires(key, entry.created, self._ttl) <= self._now:
            return True
        return entry.created < self._fact.before
