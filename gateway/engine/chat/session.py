"""Writing answers to prompts with one context, the same bits each time.

A prompt is decoded in chunks of a fixed size from its first token on, because 39 tokens and one
more give other bits than 40. So what is taken over from the prompt before is whole chunks only,
and only those that were decoded as such. Knows tokens; not texts, templates or requests.
"""

from array import array
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from gateway.engine.chat.context import Cancel, Lane
from gateway.engine.chat.faults import DecodeFailedError
from gateway.engine.chat.sampling import (
    Logits,
    Sampler,
    Sampling,
    likeliest,
    log_probabilities,
)
from gateway.engine.chat.sizing import ChatPlan
from gateway.engine.chat.vocabulary import Vocabulary
from gateway.engine.model import Model
from gateway.engine.sizing import ID_BYTES


@dataclass(frozen=True, slots=True)
class Sampled:
    """One token of an answer."""

    token: int
    piece: bytes
    """What it adds to the text; parts of a character are possible."""
    end: bool
    """Whether the model ends its answer here."""
    logprob: float | None
    """Natural logarithm of its probability to the model; None where it was not asked for."""
    top: tuple[tuple[int, bytes, float], ...]
    """The likeliest tokens: number, piece, log probability."""


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A decoded prompt, from which any number of answers begin; until the session's next prompt."""

    session: "Session"
    tokens: bytes
    reused: int
    """Tokens that were not decoded again, because the prompt before began with the same chunks."""
    logits: Logits

    def choice(self, sampling: Sampling, number: int) -> Generator[Sampled, None, None]:
        """Yield the tokens of one answer, up to the model's end or the context's.

        The same prompt, sampling and number give the same answer, whatever was written before. One
        answer at a time: beginning another ends this one. Raises StoppedError, DecodeFailedError
        and GrammarError.
        """
        return self.session.write(self, sampling, number)


class Session:
    """One context and what is in it; for one thread at a time.

    After any error the next prompt begins as if nothing had been: a context that failed is made
    anew.
    """

    def __init__(self, model: Model, vocabulary: Vocabulary, plan: ChatPlan) -> None:
        """Raises RefusedError."""
        self._model, self._vocabulary, self._plan = model, vocabulary, plan
        self._chunk = plan.chunk * ID_BYTES
        self._lane: Lane | None = None
        self._kept = b""
        self._owner = ""
        self._writing: Sampler | None = None
        self._prefilled: Prefilled | None = None
        self._open()

    def prefill(self, prompt: Sequence[int], cancel: Cancel, *, owner: str = "") -> Prefilled:
        """Decode a prompt of at least one token and fewer than the plan's limit.

        Only what an owner's own prompt before it left is reused: how many tokens were, and how soon
        an answer begins, would tell them of others' prompts. Raises StoppedError,
        DecodeFailedError, and RefusedError where there is no memory for a new context.
        """
        if not 0 < len(prompt) < self._plan.limit:
            raise ValueError(f"a prompt of {len(prompt)} tokens; the limit is {self._plan.limit}")
        tokens = array("i", prompt).tobytes()
        self._writing = self._prefilled = None
        lane = self._open()
        lane.obey(cancel)
        reused = self._shared(tokens) if owner == self._owner else 0
        self._owner = owner
        if not lane.forget(reused):
            reused = 0
        self._kept = self._kept[: reused * ID_BYTES]
        self._fill(lane, tokens)
        self._prefilled = Prefilled(self, tokens, reused, lane.logits.copy())
        return self._prefilled

    def write(
        self, prefilled: Prefilled, sampling: Sampling, number: int
    ) -> Generator[Sampled, None, None]:
        """See `Prefilled.choice`."""
        sampler = Sampler(self._vocabulary, sampling, number, self._plan.limit)
        try:
            lane = self._resume(prefilled, sampler)
            logits = prefilled.logits
            while True:
                token = sampler.pick(logits)
                yield self._sampled(token, logits, sampling.top_logprobs)
                if self._writing is not sampler:
                    raise RuntimeError("another prompt or choice has begun in this session")
                if self._vocabulary.ends(token) or lane.end + 1 >= self._plan.limit:
                    return
                self._decode(lane, array("i", [token]).tobytes(), logits=True)
                logits = lane.logits
        finally:
            sampler.close()

    def close(self) -> None:
        """Give the memory back; the next prompt opens a new context."""
        if self._lane is not None:
            self._lane.close()
        self._lane = None
        self._kept = b""
        self._writing = self._prefilled = None

    def _open(self) -> Lane:
        if self._lane is None:
            self._lane = Lane(self._model, self._plan)
        return self._lane

    def _shared(self, tokens: bytes) -> int:
        """Return how many tokens need not be decoded again; the last does, for its logits."""
        size = 0
        last = (len(tokens) - ID_BYTES) // self._chunk * self._chunk
        for start in range(0, min(last, len(self._kept)), self._chunk):
            stop = start + self._chunk
            if tokens[start:stop] != self._kept[start:stop]:
                break
            size = stop
        return size // ID_BYTES

    def _fill(self, lane: Lane, tokens: bytes) -> None:
        """Decode the rest of a prompt, of which whole chunks are in the context already."""
        for start in range(lane.end * ID_BYTES, len(tokens), self._chunk):
            chunk = tokens[start : start + self._chunk]
            self._decode(lane, chunk, logits=start + len(chunk) == len(tokens))
            if len(chunk) == self._chunk:
                self._kept += chunk

    def _resume(self, prefilled: Prefilled, sampler: Sampler) -> Lane:
        """Bring the context back to where the prompt ends."""
        if self._prefilled is not prefilled:
            raise RuntimeError("this prompt is not in the session any more")
        self._writing = sampler
        lane = self._open()
        end = len(prefilled.tokens) // ID_BYTES
        if lane.end != end and not lane.forget(end):
            self._kept = b""
            self._fill(lane, prefilled.tokens)
        return lane

    def _decode(self, lane: Lane, tokens: bytes, *, logits: bool) -> None:
        try:
            lane.decode(tokens, logits=logits)
        except DecodeFailedError:
            self.close()
            raise

    def _sampled(self, token: int, logits: Logits, top: int | None) -> Sampled:
        vocabulary = self._vocabulary
        piece, end = vocabulary.piece(token), vocabulary.ends(token)
        if top is None:
            return Sampled(token, piece, end, None, ())
        chances = log_probabilities(logits)
        named = tuple(
            (other, vocabulary.piece(other), float(chances[other]))
            for other in likeliest(chances, top)
        )
        return Sampled(token, piece, end, float(chances[token]), named)
