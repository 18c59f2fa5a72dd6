"""From a model's logits to one token: bias, penalties, nucleus, temperature, seed and grammar.

The steps are llama.cpp's own samplers. Knows nothing of contexts: it is given logits and gives a
token. Nothing here draws a random number that does not come from the seed.
"""

import ctypes
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as llama

from gateway.engine.chat.faults import DecodeFailedError, GrammarError
from gateway.engine.chat.gbnf_check import check_grammar
from gateway.engine.chat.vocabulary import Vocabulary

Logits = npt.NDArray[np.float32]

RESERVED = 0xFFFFFFFF
"""To llama.cpp this seed means: draw one."""
COLDEST = 1e-5
"""Temperatures below are 0: a logit divided by less is beyond what float32 tells apart."""
FAR = -9999.0
"""What OpenAI says instead of a log probability of a token that cannot come."""
PATIENCE = 2.0
"""Seconds of CPU that a grammar may take for one token. An ambiguous one can double its work with
each token, and would otherwise take the process down."""
_CELL = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_NEVER = -math.inf


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen, in OpenAI's words and bounds; values have been checked."""

    seed: int
    """Any int64."""
    temperature: float = 1.0
    """0 always takes the likeliest token; the seed means nothing then."""
    top_p: float = 1.0
    presence_penalty: float = 0.0
    """Taken off the logit of each token that the answer has, whatever the prompt has."""
    frequency_penalty: float = 0.0
    """The same, for each time the answer has it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None
    """GBNF whose start is the rule `root`."""
    top_logprobs: int | None = None
    """How many tokens to name with their log probability, beside the chosen one; None: none at
    all."""


def fold(seed: int, choice: int) -> int:
    """Return llama.cpp's seed, a uint32, for one choice of a request with this int64 seed."""
    numbers = seed.to_bytes(8, "little", signed=True) + choice.to_bytes(8, "little")
    return int.from_bytes(blake2b(numbers, digest_size=4).digest(), "little") % RESERVED


def log_probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """Return the log-softmax of a model's own logits, before bias, penalties and temperature.

    These are the model's opinion; what was asked of the sampler does not change it.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max()
    shifted -= math.log(np.exp(shifted).sum())
    return np.maximum(shifted, FAR)


def likeliest(chances: npt.NDArray[np.float64], count: int) -> list[int]:
    """Return the `count` likeliest tokens, the likeliest first, equal ones by their number."""
    if count == 0:
        return []
    found = np.argpartition(-chances, min(count, len(chances)) - 1)[:count]
    return [int(token) for token in found[np.lexsort((found, -chances[found]))]]


class Sampler:
    """Chooses the tokens of one answer, one after the other; for one thread. Close it."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        sampling: Sampling,
        choice: int,
        room: int,
        *,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """Make one for an answer of at most `room` tokens; raises GrammarError.

        `cpu` is this thread's processor time in seconds.
        """
        self._cpu = cpu
        self._unfit = vocabulary.unfit
        self._candidates = _Candidates(vocabulary.size)
        self._single = _Candidates(1)
        self._grammar = _grammar(vocabulary, sampling.grammar)
        self._chain = _chain(vocabulary.size, room, sampling, fold(sampling.seed, choice))

    def pick(self, logits: Logits) -> int:
        """Return the next token; raises GrammarError and DecodeFailedError.

        A grammar is asked about the token drawn first, and about all tokens only if it refuses that
        one: then a second one is drawn among those it allows. So each allowed token comes with the
        probability it has among the allowed ones, and most tokens cost next to nothing.
        """
        if not np.isfinite(logits.max()):
            raise DecodeFailedError("the model computed numbers that are none")
        if self._grammar is None:
            token = self._draw(logits)
        else:
            began = self._cpu()
            token = self._draw(logits)
            if not self._allowed(token):
                token = self._draw(logits, bound=True)
            llama.llama_sampler_accept(self._grammar, token)
            if self._cpu() - began > PATIENCE:
                raise GrammarError("is so ambiguous that following it takes too long")
        llama.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Give llama.cpp's samplers back; may be called again."""
        for sampler in (self._chain, self._grammar):
            if sampler:
                llama.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def _draw(self, logits: Logits, *, bound: bool = False) -> int:
        candidates = self._candidates
        candidates.fill(logits)
        if self._grammar is not None:
            candidates.logits[self._unfit] = _NEVER
        if bound:
            candidates.apply(self._grammar)
            if candidates.logits.max() == _NEVER:
                raise GrammarError("leads to a point from which no token of the model goes on")
        candidates.apply(self._chain)
        return candidates.selected()

    def _allowed(self, token: int) -> bool:
        self._single.ask(token)
        self._single.apply(self._grammar)
        return bool(self._single.logits[0] != _NEVER)


class _Candidates:
    """llama.cpp's list of tokens with their logits, over memory of ours."""

    def __init__(self, size: int) -> None:
        self._ids = np.arange(size, dtype=np.int32)
        self._cells = np.zeros(size, dtype=_CELL)
        self.logits = self._cells["logit"]
        self._data = self._cells.ctypes.data_as(llama.llama_token_data_p)
        self._list = llama.llama_token_data_array(data=self._data, size=size)
        self._reset()

    def fill(self, logits: Logits) -> None:
        self._reset()
        self._cells["id"] = self._ids  # samplers sort them
        self.logits[:] = logits

    def ask(self, token: int) -> None:
        self._reset()
        self._cells["id"] = token
        self.logits[:] = 0.0

    def apply(self, sampler: Any) -> None:
        llama.llama_sampler_apply(sampler, ctypes.byref(self._list))

    def selected(self) -> int:
        return int(self._list.data[self._list.selected].id)

    def _reset(self) -> None:
        self._list.data = self._data
        self._list.size = len(self._ids)
        self._list.selected = -1
        self._list.sorted = False


def _chain(size: int, room: int, sampling: Sampling, seed: int) -> Any:
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in _steps(size, room, sampling, seed):
        llama.llama_sampler_chain_add(chain, sampler)
    return chain


def _steps(size: int, room: int, sampling: Sampling, seed: int) -> list[Any]:
    steps: list[Any] = []
    bias = sampling.logit_bias
    if bias:
        pairs = (llama.llama_logit_bias * len(bias))(*sorted(bias.items()))
        steps.append(llama.llama_sampler_init_logit_bias(size, len(bias), pairs))
    if sampling.presence_penalty or sampling.frequency_penalty:
        # The prompt is never shown to it, so it counts what was generated, all of it.
        no_repetition = 1.0
        steps.append(
            llama.llama_sampler_init_penalties(
                size,
                room,
                no_repetition,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        )
    if sampling.temperature < COLDEST:
        return [*steps, llama.llama_sampler_init_greedy()]
    if sampling.top_p < 1.0:
        steps.append(llama.llama_sampler_init_top_p(sampling.top_p, 1))
    steps.append(llama.llama_sampler_init_temp(sampling.temperature))
    return [*steps, llama.llama_sampler_init_dist(seed)]


def _grammar(vocabulary: Vocabulary, grammar: str | None) -> Any:
    if grammar is None:
        return None
    check_grammar(grammar)
    made = llama.llama_sampler_init_grammar(vocabulary.handle, grammar.encode(), b"root")
    if not made:
        raise GrammarError("is not one that llama.cpp takes")
    return made
