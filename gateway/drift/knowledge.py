"""What is known of a model's drift in this process, whoever found it out; and what follows from it.

It stands in the fact of the gateway's own scope of the model, which workers and replicas share.
"""

from collections.abc import Collection

from gateway.cache.facts import Checked
from gateway.drift.canaries import ASKER, TENANT, TEXTS
from gateway.errors import UnavailableError
from gateway.route import Route
from gateway.types import Caller, EmbeddingRequest, Text


def is_watched(route: Route) -> bool:
    """Whether a model is compared with what it was: something is kept, and may be asked for."""
    model = route.model
    return model.drift != "off" and model.cached and not model.offline and not model.forwards


def last_check(route: Route) -> Checked | None:
    """Return what was last found out about a model; None before that, and after a purge."""
    fact = route.place(ASKER).scope.fact
    if fact.checked is None or fact.checked.at < fact.before:
        return None
    return fact.checked


def refuse_drifted(route: Route, texts: Collection[Text], caller: Caller, *, shared: bool) -> None:
    """Raise UnavailableError where a model's policy is not to be asked for these texts now.

    The canary texts may be asked for, as they show whether it is itself again; but for the gateway
    nobody has them kept (`shared`), or a tenant would compare with a drifted model for ever.
    """
    if route.model.drift != "refuse" or not is_watched(route):
        return
    checked = last_check(route)
    if checked is None or checked.verdict != "drift":
        return
    canaries = set(route.texts(EmbeddingRequest(route.name, TEXTS)))
    if set(texts) <= canaries and (caller.tenant == TENANT or not shared):
        return
    raise UnavailableError(
        f"Model '{route.name}' does not make the vectors any more that it made when it was first "
        f"seen here (distance {checked.distance:.2g}), so nothing new is asked of it: it would not "
        "fit what is kept. Texts that are in the cache are answered. `gateway drift` shows more.",
        code="model_drifted",
        headers={"x-should-retry": "false"},
        reason="drift",
    )
