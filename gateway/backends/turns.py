"""Who of a model's upstreams is asked first, and who next where that did not help."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

from gateway.backends.failover import most_telling
from gateway.backends.member import Member
from gateway.errors import GatewayError
from gateway.resilience.choice import in_turn

T = TypeVar("T")


class Turns:
    """Asks one upstream after the other, until one serves or there is no point in going on."""

    def __init__(
        self,
        weights: Mapping[str, int] | None,
        chance: Callable[[], float],
        on_failover: Callable[[str, str], None] = lambda _, __: None,
    ) -> None:
        """`weights` are by name; None: always in the given order.

        `on_failover` is told the names of who failed and who is asked next.
        """
        self._weights = weights
        self._chance = chance
        self._on_failover = on_failover

    async def ask(
        self,
        members: Sequence[Member],
        call: Callable[[Member, bool], Awaitable[T]],
        others_may: Callable[[GatewayError], bool],
        deadline: float,
    ) -> T:
        """Return what `call(member, stand_in)` returns for the first that serves.

        `others_may` says whether another one may do better after such an error. Raises the most
        telling error, and the client's own mistakes at once.
        """
        clock = asyncio.get_running_loop().time
        willing = [m for m in members if m.backend.circuit.permits(stand_in=True)]
        order = self._drawn(willing) + self._drawn([m for m in members if m not in willing])
        failures: list[GatewayError] = []
        for member, following in zip_longest(order, order[1:]):
            try:
                return await call(member, following is not None and member in willing)
            except GatewayError as error:
                if not others_may(error):
                    raise
                failures.append(error)
            if following is None or clock() >= deadline:
                break
            self._on_failover(member.backend.name, following.backend.name)
        raise most_telling(failures) from None

    def _drawn(self, members: Sequence[Member]) -> list[Member]:
        if self._weights is None:
            return list(members)
        weights = [self._weights.get(member.backend.name, 0) for member in members]
        return [members[place] for place in in_turn(weights, self._chance)]
