"""The ledger that replicas share: Redis 7.0 or newer, Valkey, or a cluster of either.

    embgw:limits:{name of the key in the config}    what it has used, as MessagePack

Its user needs `+time` beside the rights that the cache asks for: see gateway/cache/redis.py.

One script a round trip, about one key, by the server's own clock. It is `book.exchange` in Lua,
and a test asks both the same. The name of a key is no secret; the key itself stands nowhere.
"""

from functools import partial

import msgspec

from gateway.cache.redis_cluster import Cluster
from gateway.cache.redis_line import Access, Address
from gateway.cache.redis_server import Server, checked
from gateway.cache.store import StoreError
from gateway.quota.book import FORGOTTEN, HELD, LEASE, Ask, Told
from gateway.quota.limits import DAY, MINUTE, Limits

PREFIX = b"embgw:limits:"
_KEPT = 2 * DAY * 1000
"""Milliseconds that what nobody uses is kept: longer than the day whose dollars it counts."""

_SCRIPT = f"""
local LEASE, HELD, FORGOTTEN, MINUTE, DAY = {LEASE}, {HELD}, {FORGOTTEN}, {MINUTE}, {DAY}
local limits, ask = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local day = math.floor(now / DAY)

local book
local kept = redis.pcall('GET', KEYS[1])
if type(kept) == 'string' then
    local sound, read = pcall(cmsgpack.unpack, kept)
    if sound and type(read) == 'table' and type(read.seats) == 'table' then book = read end
end
if not book then
    book = {{at = now, requests = 0, tokens = 0, day = day, nanos = 0, seats = {{}}}}
    if ask.day == day then book.nanos = ask.spent end
end

-- time passes
local elapsed = math.max(0, now - book.at)
if book.day ~= day then book.nanos = 0 end
book.at, book.day = now, day
local out, taken, workers, known = 0, 0, 1, book.seats[ask.worker]
for worker, seat in pairs(book.seats) do
    local age = now - seat.seen
    if math.abs(age) > FORGOTTEN then
        book.seats[worker] = nil
        if worker == ask.worker then known = nil end
    elseif worker ~= ask.worker then
        workers = workers + 1
        if age <= LEASE then out = out + seat.lease end
        if age <= HELD then taken = taken + seat.places end
    end
end
local owed = out
if known and now - known.seen <= LEASE then owed = out + known.lease end
book.requests = math.max(owed, book.requests - elapsed * (limits.requests or 0) / MINUTE)
book.tokens = math.max(0, book.tokens - elapsed * (limits.tokens or 0) / MINUTE)

-- what calls were billed
local tokens, nanos = ask.known_tokens, ask.known_nanos
if known then tokens, nanos = known.tokens, known.nanos end
book.tokens = math.max(0, book.tokens + ask.tokens - tokens)
book.nanos = math.max(0, book.nanos + ask.nanos - nanos)

-- requests
local seat = {{
    seen = now, used = ask.used, lease = 0, places = 0, tokens = ask.tokens, nanos = ask.nanos
}}
if limits.requests then
    if known then
        local unused = math.max(0, known.lease - math.max(0, ask.used - known.used))
        book.requests = math.max(out, book.requests - unused)
    end
    local free = math.max(0, math.floor(limits.requests - book.requests + 0.000001))
    seat.lease = math.min(ask.lease, free)
    book.requests = book.requests + seat.lease
else
    book.requests = 0
end

-- places
if limits.places then
    seat.places = math.max(ask.busy, math.min(ask.places, limits.places - taken))
end

-- tokens and dollars
local refused = {{}}
for index, wish in ipairs(ask.wishes) do
    if limits.nanos and wish[2] > 0 and book.nanos + wish[2] > limits.nanos then
        refused[index] = 'budget'
    elseif limits.tokens and book.tokens + wish[1] > limits.tokens + 0.000001 then
        refused[index] = 'tokens'
    else
        refused[index] = ''
        book.tokens = book.tokens + wish[1]
        book.nanos = book.nanos + wish[2]
    end
end

book.seats[ask.worker] = seat
redis.call('SET', KEYS[1], cmsgpack.pack(book), 'PX', {_KEPT})
return {{
    seat.lease, seat.places, string.format('%.17g', book.requests),
    string.format('%.17g', book.tokens), string.format('%.0f', book.nanos), book.day, workers,
    unpack(refused)
}}
"""
_encode = msgspec.json.Encoder().encode


class RedisLedger:
    """Counts in Redis. A round trip has `budget` seconds, connecting `connect_budget`."""

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        cluster: bool = False,
        budget: float = 0.05,
        connect_budget: float = 0.1,
    ) -> None:
        """`url` is as RedisStore's; raises ConfigError for certificates that cannot be used."""
        access = Access(url)

        def open_server(address: Address) -> Server:
            return Server(address, partial(access.line, address), connect_budget)

        self._redis: Server | Cluster = (
            Cluster(access.address, open_server) if cluster else open_server(access.address)
        )
        self._budget = budget

    async def exchange(self, key: str, limits: Limits, ask: Ask) -> Told:
        """See Ledger.exchange."""
        limited = {"requests": limits.requests, "tokens": limits.tokens}
        limited |= {"places": limits.places, "nanos": limits.nanos}
        given = _encode({name: value for name, value in limited.items() if value is not None})
        name = PREFIX + key.encode()
        command = ("EVAL", _SCRIPT, 1, name, given, _encode(ask))
        (reply,) = checked(await self._redis.run([command], self._budget), list)
        lease, places, requests, tokens, nanos, day, workers, *refused = reply
        if len(refused) != len(ask.wishes):
            raise StoreError("error", "the server answered something else than was asked")
        return Told(
            lease=lease,
            places=places,
            refused=[why.decode() for why in refused],
            requests=float(requests),
            tokens=float(tokens),
            nanos=int(nanos),
            day=day,
            workers=workers,
        )

    async def aclose(self) -> None:
        """See Ledger.aclose."""
        await self._redis.aclose()
