"""The fastest tier: entries in this process, least recently used out first, bounded by bytes."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from cachetools import Cache

from gateway.cache.entry import Entry
from gateway.cache.keys import Key


class _Entries(Cache[Key, Entry]):
    """Counts the bytes, and drops the first of `order` where they do not fit."""

    def __init__(self, max_bytes: int, order: OrderedDict[Key, Entry]) -> None:
        super().__init__(max_bytes, getsizeof=_size)
        self._order = order
        self.evicted = 0

    def popitem(self) -> tuple[Key, Entry]:
        key, entry = self._order.popitem(last=False)
        super().__delitem__(key)
        self.evicted += 1
        return key, entry


class MemoryStore:
    """Keeps entries by key within `max_bytes`; with 0 it keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # The same entries twice: here in the order of their use, to be found at the price of a
        # dictionary; there with their sizes.
        self._order: OrderedDict[Key, Entry] = OrderedDict()
        self._entries = _Entries(max_bytes, self._order)

    def get(self, keys: Sequence[Key]) -> list[Entry | None]:
        """Return for each key its entry, or None; hits become the most recently used."""
        found = list(map(self._order.get, keys))
        touch = self._order.move_to_end
        for key, entry in zip(keys, found, strict=True):
            if entry is not None:
                touch(key)
        return found

    def put(self, key: Key, entry: Entry) -> None:
        """Keep the entry, in place of another if there is one; it may push others out.

        An entry larger than the whole store is not kept. Also counts an entry's bytes again after
        it grew a rendered form.
        """
        self.drop(key)
        if entry.size <= self._max_bytes:
            self._entries[key] = entry
            self._order[key] = entry

    def resize(self, key: Key, entry: Entry) -> None:
        """Count an entry's bytes again after it grew a rendered form, if it is still kept."""
        if self._order.get(key) is entry:
            self.put(key, entry)

    def drop(self, key: Key) -> None:
        """Forget an entry, if it is there."""
        if key in self._order:
            del self._order[key]
            del self._entries[key]

    def items(self) -> Iterator[tuple[Key, Entry]]:
        """Yield what is kept now, whatever is put or dropped meanwhile."""
        yield from list(self._order.items())

    def clear(self) -> None:
        """Forget everything."""
        self._order.clear()
        self._entries.clear()

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        return int(self._entries.currsize)

    @property
    def evicted(self) -> int:
        """Entries that made room for others."""
        return self._entries.evicted

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, key: Key) -> bool:
        return key in self._order


def _size(entry: Entry) -> int:
    return entry.size
