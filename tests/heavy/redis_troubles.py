"""What can befall a Redis, each with its end."""

import asyncio
from dataclasses import dataclass

from tests.heavy.trial import Trouble
from tests.redis_proxy import Proxy
from tests.redis_server import RedisServer, free_port

_GARBLE = """
for number, name in ipairs(redis.call('KEYS', 'embgw:*')) do
    redis.call('DEL', name)
    if name == 'embgw:1:facts' then
        redis.call('SET', name, 'no hash')
    elseif number % 2 == 0 then
        redis.call('RPUSH', name, 'no', 'string')
    else
        redis.call('HSET', name, 'no', 'string')
    end
end
"""


@dataclass
class Place:
    """A Redis and what stands before it."""

    server: RedisServer
    proxy: Proxy
    loop: asyncio.AbstractEventLoop
    """Where the proxy runs."""

    def slow(self, delay: float) -> None:
        """Let every answer come so many seconds later."""
        self.loop.call_soon_threadsafe(setattr, self.proxy, "delay", delay)

    def reset(self, *, on: bool) -> None:
        """Reset connections, or no more."""
        self.loop.call_soon_threadsafe(lambda: self.proxy.reset(on=on))

    def garble(self) -> None:
        """Put something of a wrong type under each of our names, in one step."""
        self.server.admin.eval(_GARBLE, 0)

    def forget(self) -> None:
        """Kill it, and what it has on its disk is lost too."""
        self.server.kill()
        (self.server.folder / "dump.rdb").unlink(missing_ok=True)

    def save(self) -> None:
        """Kill it when it has saved all it has."""
        self.server.admin.save()
        self.server.kill()

    def fill(self, *, full: bool) -> None:
        """Leave no room for anything more, or all there is."""
        self.server.admin.config_set("maxmemory", int(full))

    def demote(self) -> None:
        """Make it a replica of somebody who is not there."""
        self.server.admin.replicaof("127.0.0.1", free_port())


DIRECT: list[Trouble[Place]] = [
    Trouble("killed", Place.forget, lambda at: at.server.start(), keeps=False),
    Trouble("frozen", lambda at: at.server.freeze(), lambda at: at.server.thaw()),
    Trouble("full", lambda at: at.fill(full=True), lambda at: at.fill(full=False)),
    Trouble("a replica", Place.demote, lambda at: at.server.admin.replicaof("NO", "ONE")),
    Trouble("flushed", lambda at: at.server.admin.flushall(), keeps=False, unshared=False),
    Trouble("garbled", Place.garble, keeps=False, unshared=False),
    Trouble("restarted", Place.save, lambda at: at.server.start()),
]
PROXIED: list[Trouble[Place]] = [
    Trouble("slow by 1 s", lambda at: at.slow(1.0), lambda at: at.slow(0.0)),
    Trouble("resetting", lambda at: at.reset(on=True), lambda at: at.reset(on=False)),
]
