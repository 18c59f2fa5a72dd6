"""One thread's hand for chat: a session with its slot in the journal, and a request at a time.

What is written goes to the request's outbox while it is written, which holds the writer back where
the reader is slow. Knows sessions and the journal; nothing of HTTP.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.engine.chat.answer import Part, Usage
from gateway.engine.chat.choice import Choosing
from gateway.engine.chat.faults import StoppedError
from gateway.engine.chat.outbox import Outbox
from gateway.engine.chat.preparing import Prepared
from gateway.engine.chat.request import ChatRequest
from gateway.engine.chat.sampling import Sampling
from gateway.engine.chat.tools import ToolReader
from gateway.engine.decoder import Guard
from gateway.engine.journal import Journal

if TYPE_CHECKING:
    from gateway.engine.chat.context import Cancel
    from gateway.engine.chat.session import Prefilled, Session


@dataclass(frozen=True, slots=True)
class ChatJob:
    """A prepared request, its seed, and the way to whoever asked."""

    prepared: Prepared
    seed: int
    cancel: "Cancel"
    outbox: Outbox[Part]

    def leave(self) -> None:
        """Nobody reads any more: what waits is dropped, what is written stops. In the loop."""
        self.cancel.stop()
        self.outbox.leave()


class Writer:
    """Answers one request at a time, always in the thread that made it."""

    def __init__(
        self,
        session: "Session",
        reader_for: Callable[[ChatRequest], ToolReader | None],
        journal: Journal,
        guard: Guard,
        slot: int,
        on_decoded: Callable[[int, int], None] = lambda _, __: None,
    ) -> None:
        """`reader_for` gives what finds tool calls in an answer's text, if any may be there.

        `on_decoded` is told of chats that were answered, and of tokens that were decoded, prompts'
        and answers'.
        """
        self._session = session
        self._reader_for = reader_for
        self._journal = journal
        self._guard = guard
        self._slot = slot
        self._on_decoded = on_decoded

    def __call__(self, job: ChatJob) -> Usage:
        """Write all choices; raises what Session raises, and StoppedError."""
        digest = job.prepared.digest
        usage = self._guard.run(self._slot, digest, self._answer, job)
        if self._journal.suspected(digest):
            self._journal.clear(digest)
        self._on_decoded(1, 0)
        return usage

    def close(self) -> None:
        """Give the context's memory back."""
        self._session.close()

    def _answer(self, job: ChatJob) -> Usage:
        prompt, owner = job.prepared.prompt, job.prepared.request.owner
        prefilled = self._session.prefill(prompt, job.cancel, owner=owner)
        self._on_decoded(0, len(prompt) - prefilled.reused)
        completion = 0
        for number in range(job.prepared.request.n):
            completion += self._choice(job, prefilled, number)
        return Usage(len(prompt), prefilled.reused, completion)

    def _choice(self, job: ChatJob, prefilled: "Prefilled", number: int) -> int:
        """Write one choice; return its tokens."""
        request = job.prepared.request
        choosing = Choosing(
            number,
            stops=request.stop,
            max_tokens=job.prepared.max_tokens,
            reader=self._reader_for(request),
        )
        begun = False
        with closing(prefilled.choice(_sampling(job), number)) as tokens:
            for sampled in tokens:
                if not begun:
                    # Only now: what fails before the first token is still refused as a whole.
                    _put(job, choosing.begin())
                    begun = True
                for part in choosing.take(sampled):
                    _put(job, part)
                self._on_decoded(0, 1)
                if choosing.finish is not None:
                    break
        for part in choosing.end():
            _put(job, part)
        return choosing.tokens


def _put(job: ChatJob, part: Part) -> None:
    if not job.outbox.put(part):
        raise StoppedError


def _sampling(job: ChatJob) -> Sampling:
    request = job.prepared.request
    return Sampling(
        seed=job.seed,
        temperature=request.temperature,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        grammar=job.prepared.grammar,
        top_logprobs=request.top_logprobs,
    )
