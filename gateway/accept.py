"""An upstream's answer becomes entries, or is refused: all of it or nothing of it."""

from gateway.cache.entry import Entry
from gateway.cache.scopes import Place
from gateway.errors import UpstreamError
from gateway.route import Route
from gateway.types import RawEmbeddings
from gateway.vectors import InvalidVectorError, unit


def accept(raw: RawEmbeddings, route: Route, place: Place, created: float) -> list[Entry]:
    """Return an entry for each row, its vector of unit length; `created` is the Unix time.

    Raises UpstreamError, code "upstream_invalid_response", if any vector cannot be kept.
    """
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
        kind = "all zeros" if error.reason == "zero" else "not finite"
        raise UpstreamError(
            f"The answer of upstream '{route.backend.name}' was refused: a vector is {kind}.",
            code="upstream_invalid_response",
        ) from None
    route.admit(entries[0].width, place.scope)
    return entries
