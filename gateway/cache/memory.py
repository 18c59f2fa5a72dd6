"""The fastest tier: entries in this process, least recently used out first, bounded by bytes."""

from cachetools import LRUCache

from gateway.cache.entry import Entry
from gateway.cache.keys import Key


class MemoryStore:
    """Keeps entries by key within `max_bytes`; with 0 it keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: LRUCache[Key, Entry] = LRUCache(max_bytes, getsizeof=_size)

    def get(self, key: Key) -> Entry | None:
        """Return the entry, or None; a hit makes it the most recently used."""
        entries = self._entries
        return entries[key] if key in entries else None  # noqa: SIM401 - `get` looks three times

    def add(self, key: Key, entry: Entry) -> Entry:
        """Keep the entry unless there is one already, and return the one that is kept.

        The first vector stored wins. An entry larger than the whole store is not kept.
        """
        kept = self.get(key)
        if kept is not None:
            return kept
        if entry.size <= self._max_bytes:
            self._entries[key] = entry
        return entry

    def resize(self, key: Key, entry: Entry) -> None:
        """Count an entry's bytes again after it grew a rendered form; it may push others out."""
        if self._entries.get(key) is not entry:
            return
        if entry.size <= self._max_bytes:
            self._entries[key] = entry
        else:
            del self._entries[key]

    @property
    def bytes(self) -> int:
        """Bytes in use."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)


def _size(entry: Entry) -> int:
    return entry.size
