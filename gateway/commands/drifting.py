"""Asking models for the canary texts, kept and anew: `gateway drift`."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import random
from typing import Literal

import numpy as np

from gateway.commands.asking import Answer, Client, FailedError, RefusedError
from gateway.commands.opened import CommandError
from gateway.commands.progress import Progress
from gateway.drift.canaries import SEEDS, TEXTS
from gateway.drift.comparison import Draw, compare
from gateway.errors import OTHER_WIDTH
from gateway.resilience.retry import RetryPolicy
from gateway.vectors import norms

RETRIES = RetryPolicy(chance=random, attempts=3, base=0.5, cap=5.0)
"""Someone waits for the answer, and several models may be away for one reason."""
_SAYS_SO = frozenset({OTHER_WIDTH, "model_drifted"})
"""A gateway's words for drift that it has found itself: see gateway.drift.knowledge."""
_OFFLINE = "it is offline, or the gateway is: nobody is asked"
_NAMED = 5
"""Models that are named in a sentence."""
_UNIT = 1e-3
"""How far a norm may be from 1; float32 leaves it within 1e-6."""


@dataclass(frozen=True, slots=True)
class Draws:
    """What one model said of the canary texts."""

    kept: Sequence[Draw]
    fresh: Sequence[Draw]
    first_seen: bool
    """Whether some of the kept draws have been made just now."""
    age: int
    """Seconds since the oldest of them was made."""


class NoFiguresError(Exception):
    """There is nothing to compare; the message says why, `verdict` what that means."""

    def __init__(self, why: str, verdict: Literal["unasked", "drift"] = "unasked") -> None:
        super().__init__(why)
        self.verdict = verdict


async def choose(client: Client) -> tuple[list[str], str | None]:
    """Return the models that the server says are for embeddings; and what to say of the others.

    Raises CommandError where there are none, or the server does not tell.
    """
    listed = await client.models()
    if not all(model.id.isprintable() for model in listed):
        raise CommandError("the server lists models whose names cannot be printed")
    chosen = [model.id for model in listed if model.task == "embedding"]
    others = [model.id for model in listed if model.task is None]
    named = ", ".join(others[:_NAMED]) + (", …" if len(others) > _NAMED else "")
    if not chosen:
        hint = f"; name those that you mean, of {named}" if others else ""
        raise CommandError(f'no model here says task = "embedding"{hint}')
    note = f'not asked, as their task is not said to be "embedding": {named}' if others else None
    return chosen, note


async def draw(client: Client, model: str, times: int, progress: Progress) -> Draws:
    """Return the kept draws of a model, made where there are none yet, and so many fresh ones.

    A single one that has drifted is drawn once more: some servers answer one request in many with
    something else. Raises NoFiguresError.
    """
    try:
        return await _draw(client, model, times, progress)
    except FailedError as error:
        if error.code in _SAYS_SO:
            raise NoFiguresError(str(error), "drift") from error
        raise NoFiguresError(_OFFLINE if error.code == "not_cached" else str(error)) from error
    except RefusedError as error:
        raise NoFiguresError(str(error)) from error


async def _draw(client: Client, model: str, times: int, progress: Progress) -> Draws:
    kept = []
    # One request after the other: together some models would answer with other bits.
    for seed in SEEDS:
        kept.append(await client.vectors(TEXTS, model=model, seed=seed))
        progress.add(1)
    first_seen = any(map(_was_made, kept))
    # What was made just now has to be found again.
    again = [await client.vectors(TEXTS, model=model, seed=SEEDS[-1])] if first_seen else []
    _check([*kept, *again], again)
    vectors = [answer.vectors for answer in kept]
    fresh: list[Draw] = []
    while len(fresh) < times or (len(fresh) == 1 and compare(vectors, fresh).verdict == "drift"):
        answer = await client.vectors(TEXTS, anew=True, model=model, seed=SEEDS[0])
        fresh.append(answer.vectors)
        _check_vectors(fresh[-1])
        progress.add(1)
    return Draws(vectors, fresh, first_seen, max(answer.age or 0 for answer in kept))


def _was_made(answer: Answer) -> bool:
    return bool(answer.sources.get("upstream") or not answer.sources)


def _check(answers: Sequence[Answer], again: Sequence[Answer]) -> None:
    """Raise NoFiguresError unless the kept draws are kept, and stay."""
    if not all(answer.keeps for answer in answers):
        raise NoFiguresError("the server keeps no vectors that others could be compared with")
    for answer in answers:
        _check_vectors(answer.vectors)
    if any(map(_was_made, again)):
        raise NoFiguresError("its vectors are not kept, so there is nothing to compare others with")
    if any(answer.unshared for answer in answers):
        raise NoFiguresError("a store is away, so it is not known what it keeps")


def _check_vectors(draw: Draw) -> None:
    """Raise NoFiguresError unless these are as every gateway's; else distances mean nothing."""
    lengths = norms([np.frombuffer(vector, "<f4") for vector in draw])
    # So also where a norm is no number.
    if not all(abs(length - 1.0) < _UNIT for length in lengths) or len(set(map(len, draw))) > 1:
        raise NoFiguresError("the server's vectors are no unit vectors of one width")
