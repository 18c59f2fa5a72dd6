"""An upstream's answer becomes entries, or is refused: all of it or nothing of it."""

from collections.abc import Callable

from gateway.cache.entry import Entry
from gateway.cache.scopes import Place
from gateway.errors import VectorsRefusedError
from gateway.route import Route
from gateway.types import RawEmbeddings
from gateway.vectors import InvalidVectorError, unit


def accept(
    raw: RawEmbeddings,
    route: Route,
    place: Place,
    created: float,
    on_refused: Callable[[VectorsRefusedError], None],
) -> list[Entry]:
    """Return an entry for each row, its vector of unit length; `created` is the Unix time.

    Raises VectorsRefusedError if any vector cannot be kept, and tells `on_refused` of it.
    """
    try:
        return _accept(raw, route, place, created)
    except VectorsRefusedError as error:
        on_refused(error)
        raise


def _accept(raw: RawEmbeddings, route: Route, place: Place, created: float) -> list[Entry]:
    # Who purged may have another clock: what is made once it is known of is newer.
    created = max(created, place.scope.fact.before)
    truncated = raw.truncated or [False] * len(raw.rows)
    try:
        entries = [
            Entry(
                unit(row).tobytes(),
                tokens,
                created=created,
                estimated=raw.estimated,
                truncated=cut,
                fingerprint=raw.fingerprint,
                namespace=place.namespace,
            )
            for row, tokens, cut in zip(raw.rows, raw.tokens, truncated, strict=True)
        ]
    except InvalidVectorError as error:
        why = "a vector is all zeros" if error.reason == "zero" else "a vector is not finite"
        raise VectorsRefusedError(raw.upstream, why, error.reason) from None
    route.admit(entries[0].width, place.scope, raw.upstream)
    return entries
