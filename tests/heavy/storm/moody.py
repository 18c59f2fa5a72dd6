"""An upstream without a network that never says the same twice, and often says it wrongly.

A Transport for the real OpenAIBackend. Each call has a mood: most answer well, some out of order,
and one in eight fails in one of the ways in which real servers do.
"""

import asyncio
import random
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from gateway.backends.exchange import Reply, broken, late
from tests.heavy.storm import telling
from tests.heavy.storm.books import ASKING, Books, Call

Item = dict[str, Any]
"""One of `data`, its vector still an array."""


def well(items: list[Item]) -> None:
    """Behave."""


def shuffled(items: list[Item]) -> None:
    """Answer out of order, each with its index."""
    items[:] = items[1:][::-1] + items[:1]


def one_unplaced(items: list[Item]) -> None:
    """Answer out of order, and leave out the index of one, which is the place left over."""
    shuffled(items)
    del items[0]["index"]


def unplaced(items: list[Item]) -> None:
    """Answer in order and without any index; who says that it is in order?"""
    for item in items:
        del item["index"]


def short(items: list[Item]) -> None:
    """Leave one out."""
    items.pop()


def long(items: list[Item]) -> None:
    """Send one too many."""
    items.append(items[-1] | {"index": len(items)})


def twice(items: list[Item]) -> None:
    """Give two the same index."""
    items[-1] = items[-1] | {"index": items[0]["index"]}
    if len(items) == 1:
        items.append(items[0])


def negative(items: list[Item]) -> None:
    """Give the last the index -1, which is the last place in Python."""
    items[-1] = items[-1] | {"index": -1}


def narrow(items: list[Item]) -> None:
    """Cut the last vector; a single one is left out."""
    if len(items) == 1:
        items.pop()
    else:
        items[-1] = items[-1] | {"embedding": items[-1]["embedding"][:-1]}


def _with(value: float) -> Callable[[list[Item]], None]:
    def behave(items: list[Item]) -> None:
        vector = items[-1]["embedding"].copy()
        vector[3:] = value
        if not value:
            vector[:] = 0.0
        items[-1] = items[-1] | {"embedding": vector}

    return behave


_SOUND = {"well": (75.0, well), "shuffled": (10.0, shuffled), "one unplaced": (3.0, one_unplaced)}
_WRONG: Mapping[str, tuple[float, Callable[[list[Item]], None]]] = {
    "unplaced": (0.6, unplaced),
    "short": (0.6, short),
    "long": (0.6, long),
    "twice": (0.6, twice),
    "negative": (0.6, negative),
    "narrow": (0.6, narrow),
    "nan": (0.6, _with(np.nan)),
    "infinite": (0.6, _with(np.inf)),
    "zero": (0.6, _with(0.0)),
}
_FAILING = {"400": 0.6, "429": 1.2, "500": 1.2, "503": 1.2, "half": 0.6, "broken": 0.8, "mute": 0.4}
_MOODS = {
    **{mood: weight for mood, (weight, _) in {**_SOUND, **_WRONG}.items()},
    **_FAILING,
}
_DELAYS = ((0.4, 0.0), (0.4, 0.005), (0.15, 0.03), (0.05, 0.2))
"""Share of the calls, and the seconds that an answer takes at most."""


class Moody:
    """The upstream of every worker, and its Transport."""

    def __init__(self, books: Books, seed: int) -> None:
        self.under_way = 0
        self._books = books
        self._chance = random.Random(seed)

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout: float,
    ) -> Reply:
        """See Transport.send."""
        del method, url, headers
        asked = msgspec.json.decode(body or b"")
        texts = asked["input"]
        (mood,) = self._chance.choices(list(_MOODS), list(_MOODS.values()))
        if len(texts) == 1 and mood == "unplaced":
            mood = "well"  # a single text needs no index
        call = Call(len(self._books.calls), ASKING.get(), asked["model"], mood, mood in _SOUND)
        self._books.calls.append(call)
        self._books.asked_texts += len(texts)
        self.under_way += 1
        try:
            return await self._answer(call, texts, asked.get("encoding_format"), timeout)
        finally:
            self.under_way -= 1
            call.ask.met.add(mood)

    async def _answer(
        self, call: Call, texts: Sequence[Any], encoding: str | None, timeout: float
    ) -> Reply:
        ((_, longest),) = self._chance.choices(_DELAYS, [share for share, _ in _DELAYS])
        delay = longest * self._chance.random()
        if call.mood == "mute" or delay > timeout:
            await asyncio.sleep(timeout)
            call.ask.met.add("late")
            raise late(connected=True)
        await asyncio.sleep(delay)
        call.answered, call.at = self._books.moment(), time.time()
        if call.mood == "broken":
            raise broken(ConnectionResetError())
        if call.mood.isdigit():
            return Reply(int(call.mood), {"retry-after-ms": "1"}, b'{"error": {"message": "no"}}')
        return Reply(200, {}, self._body(call, texts, encoding))

    def _body(self, call: Call, texts: Sequence[Any], encoding: str | None) -> bytes:
        numbers = [telling.number_of(text) for text in texts]
        vectors = telling.drawn(numbers, self._books.draw(call, len(texts)))
        items: list[Item] = [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ]
        _, behave = {**_SOUND, **_WRONG}.get(call.mood, (0, well))
        behave(items)
        form = _base64 if encoding == "base64" else _numbers
        data = [item | {"embedding": form(item["embedding"])} for item in items]
        whole = msgspec.json.encode({"data": data, "usage": {"prompt_tokens": 3 * len(texts)}})
        return whole[: len(whole) // 2] if call.mood == "half" else whole

    async def aclose(self) -> None:
        """See Transport.aclose."""


def _base64(vector: np.ndarray) -> str:
    return b64encode(vector.tobytes()).decode()


def _numbers(vector: np.ndarray) -> list[float]:
    return vector.astype(float).tolist()
