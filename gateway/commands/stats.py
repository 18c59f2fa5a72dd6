"""What the stores hold: `gateway cache stats`."""

import msgspec

from gateway.cache.store import StoreError
from gateway.commands.opened import CommandError, Held, Opened, fits, held, known_secret, opened
from gateway.config import Cache


class ScopeStats(msgspec.Struct, frozen=True):
    """What a store holds of a tenant's vectors of a model, or its chats, in one generation."""

    scope: str
    tenant: str | None
    """None, and so the model, where the store does not know whose they are."""
    model: str | None
    generation: int
    state: str
    """ "current", "past" (purged, and left over) or "unknown"."""
    width: int | None
    """None for chats."""
    entries: int
    bytes: int


class StoreStats(msgspec.Struct, frozen=True):
    """What one store holds."""

    store: str
    where: str
    state: str
    """ "here", "missing" (there is none yet) or "away"."""
    why: str | None = None
    """Why it is away, or could not be made."""
    secret: str | None = None
    """ "fits", "other" (made with another one) or "unset" (not used yet)."""
    entries: int = 0
    bytes: int = 0
    scopes: list[ScopeStats] = []


async def stats(cache: Cache) -> list[StoreStats]:
    """Return what each store holds, nearest first; raises CommandError where there are none."""
    async with opened(cache) as stores:
        try:
            deciding = {} if stores[-1].missing else dict(await stores[-1].store.facts())
        except (StoreError, CommandError):
            deciding = {}  # and it will be told that it is away
        secret = known_secret(cache, deciding)
        return [await _look(store, secret) for store in stores]


async def _look(opened: Opened, secret: bytes | None) -> StoreStats:
    name, where = opened.store.name, str(opened.address)
    try:
        if opened.missing:
            return StoreStats(name, where, "missing", opened.unmakeable)
        facts = await opened.ask(opened.store.facts)
        scopes = [_of(found) for found in await held(opened, facts)]
    except CommandError as error:
        return StoreStats(name, where, "away", str(error))
    return StoreStats(
        name,
        where,
        "here",
        secret={None: "unset", True: "fits", False: "other"}[fits(secret, facts)],
        entries=sum(scope.entries for scope in scopes),
        bytes=sum(scope.bytes for scope in scopes),
        scopes=scopes,
    )


def _of(found: Held) -> ScopeStats:
    fact, usage = found.fact, found.usage
    state = "unknown" if fact is None else "current" if found.current else "past"
    return ScopeStats(
        found.scope,
        fact.tenant if fact else None,
        fact.model if fact else None,
        found.generation,
        state,
        fact.width if fact else None,
        usage.entries,
        usage.bytes,
    )


def lines(stats: StoreStats) -> list[str]:
    """Return what people read of it."""
    told = [f"{stats.store}  {stats.where}"]
    if stats.state == "missing":
        return [*told, f"  not there yet; {stats.why or 'the gateway makes it when it starts'}"]
    if stats.state == "away":
        return [*told, f"  away: {stats.why}"]
    told.append(f"  secret: {_SECRETS[stats.secret or 'unset']}")
    if not stats.scopes:
        return [*told, "  empty"]
    head = ("tenant", "model", "generation", "width", "entries", "bytes")
    rows = [head, *map(_row, stats.scopes)]
    if len(stats.scopes) > 1:
        rows.append(("total", "", "", "", f"{stats.entries:,}", size(stats.bytes)))
    return told + table(rows, left=2)


_SECRETS = {
    "fits": "fits",
    "other": "another one than this config's: nothing here can be found with it",
    "unset": "none yet",
}


def _row(scope: ScopeStats) -> tuple[str, ...]:
    marks = {"past": " (past: purged)", "unknown": "", "current": ""}
    return (
        scope.tenant if scope.tenant is not None else "(unknown)",
        scope.model if scope.model is not None else scope.scope,
        f"{scope.generation}{marks[scope.state]}",
        "" if scope.width is None else str(scope.width),
        f"{scope.entries:,}",
        size(scope.bytes),
    )


def table(rows: list[tuple[str, ...]], *, left: int) -> list[str]:
    """Return the rows as lines with columns below each other, the first `left` ones flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(
            f"{cell:<{width}}" if place < left else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]  # fmt: skip


def size(count: int) -> str:
    """Return a number of bytes in a unit that makes it short."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
