"""From settings to a running engine for chat: read the file, prove the model, open its sessions.

The composition root of what writes answers, as `gateway.engine.start` is of what embeds.
"""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any

from gateway.engine.chat.answer import Usage
from gateway.engine.chat.app import ChatApp
from gateway.engine.chat.context import Cancel, bit_options
from gateway.engine.chat.faults import DecodeFailedError
from gateway.engine.chat.named import find_template
from gateway.engine.chat.preparing import ChatPreparer
from gateway.engine.chat.request import ChatRequest, Limits, parse_request
from gateway.engine.chat.sampling import Sampling
from gateway.engine.chat.session import Sampled, Session
from gateway.engine.chat.sizing import ChatPlan, plan_chat
from gateway.engine.chat.template import Template
from gateway.engine.chat.tools import ToolReader
from gateway.engine.chat.vocabulary import Vocabulary
from gateway.engine.chat.writer import ChatJob, Writer
from gateway.engine.decoder import Guard
from gateway.engine.faults import RefusedError
from gateway.engine.http import Health
from gateway.engine.journal import Journal
from gateway.engine.log import Log
from gateway.engine.machine import available_memory, resident_memory, usable_cores
from gateway.engine.model import LlamaLog, Model, engine_version
from gateway.engine.pool import Pool
from gateway.engine.running import (
    Engine,
    open_counter,
    open_journal,
    tokenizing_thread,
    warn_of_cores,
)
from gateway.engine.scout import must_stay_plain
from gateway.engine.settings import Settings
from gateway.engine_counts import EngineCounter
from gateway.errors import InvalidRequestError
from gateway.gguf import GGUFError, GGUFInfo, describe, sha256_file

_PROBE = b"The quick brown fox jumps over the lazy dog. " * 4
_PROBE_PROMPT = 40
"""Tokens; a large model takes a second for them, for each context and each time."""
_PROBE_TOKENS = 4
_PLAIN = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
_ID_BITS = 96


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Model
    vocabulary: Vocabulary
    plan: ChatPlan
    plain: bool

    def session(self) -> Session:
        return Session(self.model, self.vocabulary, self.plan)


@dataclass(frozen=True, slots=True)
class _Language:
    """How the model is spoken to, and how it calls functions."""

    template: Template
    source: str
    origin: str
    """A name of ours, "config" or "file"."""
    randbits: Callable[[int], int]

    def reader(self, request: ChatRequest) -> ToolReader | None:
        form = self.template.calls_of(request)
        if form is None:
            return None
        return ToolReader(form, request.functions, self._id, parallel=request.parallel)

    def _id(self) -> str:
        return f"{self.randbits(_ID_BITS):024x}"


def build_chat(
    settings: Settings,
    log: Log,
    *,
    clock: Callable[[], float],
    timer: Callable[[], float],
    after_fork: Callable[[], None],
    randbits: Callable[[int], int],
) -> Engine:
    """Load and prove the model; raises RefusedError.

    `clock` gives seconds since 1970, `timer` never goes back, `randbits` draws ids and seeds. To be
    called while the process has one thread; `after_fork` runs in the child that tries the model
    first.
    """
    try:
        info = describe(settings.model)
    except GGUFError as error:
        raise RefusedError(f"the file {error}") from error
    plain = must_stay_plain(
        partial(_attempt, settings, info), "writes a first token", log, after_fork
    )
    loaded = _load(settings, info, log, plain=plain)
    language = _language(settings, loaded, clock, randbits)
    plan = loaded.plan
    _report(settings, info, plan, log)
    journal = open_journal(settings, plan.contexts + 1, clock)
    guard = Guard(journal)
    counter = open_counter(settings)
    pool = _fill_pool(settings, loaded, language, journal, guard, counter, timer)
    preparer = ChatPreparer(
        language.template,
        loaded.vocabulary,
        journal,
        guard,
        slot=plan.contexts,
        limit=plan.limit,
        clock=clock,
    )
    preparing = tokenizing_thread(plan.limit)
    health = _health(settings, info, loaded, language, pool)
    app = ChatApp(preparer, preparing, pool, health, clock=clock, randbits=randbits)
    facts = {"context": plan.limit, "contexts": plan.contexts}
    return Engine(app, pool, preparing, journal, counter, facts)


def _attempt(settings: Settings, info: GGUFInfo, plain: bool) -> int:
    silent = Log("error", fd=os.open(os.devnull, os.O_WRONLY))
    try:
        loaded = _load(settings, info, silent, plain=plain)
        _probe(loaded.session(), loaded)
    except RefusedError as error:
        return error.exit_code
    return 0


def _load(settings: Settings, info: GGUFInfo, log: Log, *, plain: bool) -> _Loaded:
    # Before the weights are read: the file alone tells whether they will fit.
    plan = plan_chat(info, settings, cores=usable_cores(), memory=available_memory())
    model = Model(settings.model, info, LlamaLog(log), gpu_layers=settings.gpu_layers, plain=plain)
    if model.encoder:
        raise RefusedError("this model reads a text with an encoder; only decoders can chat")
    return _Loaded(model, Vocabulary(model), plan, plain)


def _language(
    settings: Settings,
    loaded: _Loaded,
    clock: Callable[[], float],
    randbits: Callable[[int], int],
) -> _Language:
    """Open the template and try it on a plain message; raises RefusedError."""
    source, origin = find_template(settings.model, settings.chat_template)
    vocabulary = loaded.vocabulary
    template = Template(source, vocabulary.bos, vocabulary.eos, vocabulary.marks)
    request = parse_request(_PLAIN, Limits(vocab=vocabulary.size, context=loaded.plan.limit))
    try:
        written = template.render(request, datetime.fromtimestamp(clock(), UTC))
    except InvalidRequestError as error:
        raise RefusedError(f"the chat template fails on a plain message: {error}") from error
    if not written:
        raise RefusedError("the chat template makes nothing of a plain message")
    return _Language(template, source, origin, randbits)


def _probe(session: Session, loaded: _Loaded) -> tuple[int, ...]:
    """Write some tokens twice, by both ways of decoding; return them; raises RefusedError."""
    text = loaded.vocabulary.tokenize(_PROBE)
    prompt = text[: max(1, min(_PROBE_PROMPT, loaded.plan.limit - _PROBE_TOKENS - 1))]
    try:
        first, second = (_few_tokens(session, prompt) for _ in range(2))
    except DecodeFailedError as error:
        raise RefusedError(f"the model fails on a plain text: {error.message}") from error
    if first != second:
        raise RefusedError("the model gave two answers to one prompt, with the same seed")
    return tuple(sampled.token for sampled in first)


def _few_tokens(session: Session, prompt: list[int]) -> list[Sampled]:
    # Shorter than a chunk, so nothing of the first time is reused the second time.
    answer = session.prefill(prompt, Cancel()).choice(Sampling(seed=0, top_logprobs=1), 0)
    with closing(answer) as tokens:
        return list(islice(tokens, _PROBE_TOKENS))


def _report(settings: Settings, info: GGUFInfo, plan: ChatPlan, log: Log) -> None:
    """Log what was decided, and what somebody may not expect."""
    cores = usable_cores()
    log.write("info", "sized", architecture=info.architecture, cores=cores, **asdict(plan))
    if settings.n_ctx is not None and settings.n_ctx > plan.limit:
        log.write("warning", "n_ctx", message=f"the model has {plan.limit} positions, not more")
    if plan.limit < info.context_train and settings.n_ctx is None:
        log.write(
            "info",
            "n_ctx",
            message=f"conversations of up to {plan.limit} tokens are taken, to bound memory; the"
            f" model was trained on {info.context_train}: set n_ctx for more",
        )
    warn_of_cores(settings, plan.contexts, plan.threads, cores, log)


def _fill_pool(
    settings: Settings,
    loaded: _Loaded,
    language: _Language,
    journal: Journal,
    guard: Guard,
    counter: EngineCounter,
    timer: Callable[[], float],
) -> Pool[ChatJob, Usage]:
    """Open the sessions, each in its thread, and see that all write the same."""
    proofs: set[tuple[int, ...]] = set()

    def make(number: int) -> Writer:
        session = loaded.session()
        proofs.add(_probe(session, loaded))
        return Writer(session, language.reader, journal, guard, number, counter.decoded)

    pool = Pool(
        make,
        loaded.plan.contexts,
        max_queue=settings.max_queue,
        clock=timer,
        on_wait=counter.waited,
    )
    if len(proofs) != 1 and settings.gpu_layers == 0:
        raise RefusedError("two contexts wrote two answers to one prompt")
    return pool


def _fingerprint(settings: Settings, info: GGUFInfo, loaded: _Loaded, language: _Language) -> str:
    """Return a name for everything that decides the bits of an answer, beside the request."""
    decides = (
        settings.weights or sha256_file(settings.model),
        info.file_type,
        engine_version(),
        language.source,
        *bit_options(loaded.plan, gpu_layers=settings.gpu_layers, plain=loaded.plain),
    )
    return f"fp_{blake2b(repr(decides).encode(), digest_size=8).hexdigest()}"


def _health(
    settings: Settings,
    info: GGUFInfo,
    loaded: _Loaded,
    language: _Language,
    pool: Pool[ChatJob, Usage],
) -> Health:
    plan = loaded.plan
    fixed = {
        "task": settings.task,
        "context": plan.limit,
        "vocab": loaded.vocabulary.size,
        "contexts": plan.contexts,
        "threads": plan.threads,
        "architecture": info.architecture,
        "template": language.origin,
        "queue_limit": settings.max_queue,
        "restarts": settings.restarts,
        "engine": engine_version(),
        "fingerprint": _fingerprint(settings, info, loaded, language),
    }

    def moving() -> dict[str, Any]:
        return {
            "queue_depth": pool.waiting,
            "busy": pool.busy,
            "rss_bytes": resident_memory(),
        }

    return Health(fixed, moving)
