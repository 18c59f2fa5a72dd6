"""A Redis Cluster: each command goes to the server that has its key.

redis-py's own cluster client is not used: its pipelines sleep and retry beyond any budget, do not
learn that a server was replaced, and after some redirections close the connections of everybody.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from redis.crc import key_slot
from redis.exceptions import AskError, MovedError

from gateway.cache.redis_line import Address
from gateway.cache.redis_server import Command, Reply, Server, checked, is_wrong_type
from gateway.cache.store import StoreError

_SLOTS = 16384
_TURNS = 3
"""Times a command is sent: to where its key was, to where it is now, and once more."""

_ASKING: Command = ("ASKING",)


class Cluster:
    """Runs commands on all the servers of a cluster; each command is about one key."""

    def __init__(self, seed: Address, open_server: Callable[[Address], Server]) -> None:
        """`seed` is any server of the cluster, or a name that stands for all of them."""
        self._seed = seed
        self._open = open_server
        self._servers: dict[Address, Server] = {}
        self._owners: list[Address | None] = []
        """By slot; empty while it is not known."""
        self._learning = asyncio.Lock()

    async def run(self, commands: Sequence[Command], budget: float) -> list[Reply]:
        """See Server.run; the budget is for each server and each turn."""
        replies: dict[int, Reply] = {}
        places: dict[int, Address] = {}  # what is just moving, by index: where to ask for it
        for turn in range(_TURNS):
            waiting = [index for index in range(len(commands)) if index not in replies]
            if not waiting:
                break
            await self._learn(budget)
            groups = self._group(commands, waiting, places)
            answers = await asyncio.gather(
                *(
                    self._ask(address, [commands[i] for i in indices], budget, asking=asking)
                    for (address, asking), indices in groups.items()
                ),
                return_exceptions=True,
            )
            places = {}
            for ((address, _), indices), answer in zip(groups.items(), answers, strict=True):
                if isinstance(answer, BaseException):
                    self._lost(address, answer, last=turn == _TURNS - 1)
                else:
                    self._sort(address, zip(indices, answer, strict=True), replies, places)
        if len(replies) < len(commands):
            raise StoreError("error", "the cluster sends us from one server to the next")
        return [replies[index] for index in range(len(commands))]

    async def values(self, names: Sequence[bytes], budget: float) -> list[bytes | None]:
        """See Server.values."""
        replies = await self.run([("GET", name) for name in names], budget)
        found = [None if is_wrong_type(reply) else reply for reply in replies]
        return checked(found, bytes | None)

    async def servers(self, budget: float) -> Sequence[Server]:
        """Return those that have keys; replicas are not asked."""
        await self._learn(budget)
        return [self._server(address) for address in dict.fromkeys(self._owners) if address]

    async def aclose(self) -> None:
        """See Server.aclose."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))

    def _group(
        self, commands: Sequence[Command], waiting: Iterable[int], places: dict[int, Address]
    ) -> dict[tuple[Address, bool], list[int]]:
        """Return which commands go where, and whether they have to say that they were sent."""
        groups: dict[tuple[Address, bool], list[int]] = {}
        for index in waiting:
            address = places.get(index)
            owner = address or self._owners[key_slot(key_of(commands[index]))]
            if owner is None:
                raise StoreError("error", "no server of the cluster has this key's slot")
            groups.setdefault((owner, address is not None), []).append(index)
        return groups

    async def _ask(
        self, address: Address, commands: list[Command], budget: float, *, asking: bool
    ) -> list[Reply]:
        if not asking:
            return await self._server(address).run(commands, budget)
        pairs = [part for command in commands for part in (_ASKING, command)]
        return (await self._server(address).run(pairs, budget))[1::2]

    def _sort(
        self,
        address: Address,
        answers: Iterable[tuple[int, Reply]],
        replies: dict[int, Reply],
        places: dict[int, Address],
    ) -> None:
        """Keep what was answered; note where to ask for the rest."""
        for index, reply in answers:
            if not isinstance(reply, AskError):
                replies[index] = reply
                continue
            to = Address(reply.host or address.host, reply.port)
            if not isinstance(reply, MovedError):
                places[index] = to
            elif self._owners:
                self._owners[reply.slot_id] = to

    def _lost(self, address: Address, error: BaseException, *, last: bool) -> None:
        """Ask again who has what, the others first; one that is gone may have been replaced."""
        self._owners = []
        if address in self._servers:
            self._servers[address] = self._servers.pop(address)
        if last or not isinstance(error, StoreError) or error.reason != "connect":
            raise error

    def _server(self, address: Address) -> Server:
        server = self._servers.get(address)
        if server is None:
            server = self._servers[address] = self._open(address)
        return server

    async def _learn(self, budget: float) -> None:
        """Ask who has what, if that is not known; raise StoreError if nobody can say."""
        async with self._learning:
            if self._owners:
                return
            for address in dict.fromkeys((*self._servers, self._seed)):
                try:
                    replies = await self._server(address).run([("CLUSTER SLOTS",)], budget)
                    (slots,) = checked(replies, list)
                except StoreError as error:
                    failure = error
                else:
                    self._owners = _owners(slots, address.host)
                    break
            else:
                raise failure
            for address in set(self._servers) - set(self._owners):
                await self._servers.pop(address).retire()


def key_of(command: Command) -> bytes:
    """Return the one key that a command is about."""
    key = command[3] if command[0] == "EVAL" else command[1]
    return key if isinstance(key, bytes) else str(key).encode()


def _owners(slots: Reply, host: str) -> list[Address | None]:
    """Return who has each slot; a server that does not know its own name is at `host`."""
    owners: list[Address | None] = [None] * _SLOTS
    for first, last, primary, *_ in slots:
        owner = Address(primary[0].decode() if primary[0] else host, primary[1])
        owners[first : last + 1] = [owner] * (last + 1 - first)
    return owners
