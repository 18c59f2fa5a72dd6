"""What a store says of the secret that its keys were made with: two facts, and both may be damaged.

`check` is made from the secret, shows nothing of it, and tells by itself that a bit has changed.
`secret` is there where replicas have no secret but the one that the first of them said.
"""

from collections.abc import Mapping

from gateway.cache.keys import check_value, is_check_value
from gateway.cache.store import CacheStore


async def shared_secret(store: CacheStore, own: bytes, facts: Mapping[str, bytes]) -> bytes:
    """Return the secret that all who share a store have: ours, if nobody came before.

    So it is where the store's check value fits ours: then its secret is damaged, and set right.
    Raises StoreError.
    """
    held = await store.settle("secret", own)
    if held != own and (len(held) != len(own) or facts.get("check") == check_value(own)):
        await store.swap("secret", held, own)
        held = await store.settle("secret", own)
    return held


async def is_ours(store: CacheStore, secret: bytes, facts: Mapping[str, bytes]) -> bool:
    """Whether a store was made with this secret: also if it says nothing sound, and then it does.

    Raises StoreError.
    """
    ours = check_value(secret)
    check = facts.get("check")
    if check is None or not is_check_value(check):
        if check is not None:
            await store.swap("check", check, ours)
        check = await store.settle("check", ours)
    return check == ours


def is_doubtful(facts: Mapping[str, bytes], secret: bytes | None) -> bool:
    """Whether a store that was ours has to be looked at again.

    `secret` is what it should say, None where it should say nothing.
    """
    if not is_check_value(facts.get("check", b"")):
        return True
    return secret is not None and facts.get("secret") != secret
