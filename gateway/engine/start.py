"""From settings to a running engine: read the file, prove the model, size and fill the pool.

The composition root under the process: knows every part of the engine, and no sockets or signals.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

from gateway.engine.app import EngineApp
from gateway.engine.decoder import Decoder, Guard, Job, Preparer, probe
from gateway.engine.faults import RefusedError
from gateway.engine.http import Health
from gateway.engine.journal import Journal
from gateway.engine.log import Log
from gateway.engine.machine import available_memory, resident_memory, usable_cores
from gateway.engine.model import Context, LlamaLog, Model, Tokenizer, engine_version
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
from gateway.engine.sizing import Plan, choose_pooling, plan_sizes
from gateway.engine_counts import EngineCounter
from gateway.gguf import GGUFError, GGUFInfo, describe


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Model
    plan: Plan
    pooling: str
    tokenizer: Tokenizer

    def context(self, threads: int) -> Context:
        return Context(self.model, self.plan, self.pooling, threads)


def build_engine(
    settings: Settings,
    log: Log,
    *,
    clock: Callable[[], float],
    timer: Callable[[], float],
    after_fork: Callable[[], None],
) -> Engine:
    """Load and prove the model; raises RefusedError.

    `clock` means the same after a restart, `timer` never goes back. To be called while the process
    has one thread; `after_fork` runs in the child that tries the model first.
    """
    try:
        info = describe(settings.model)
    except GGUFError as error:
        raise RefusedError(f"the file {error}") from error
    pooling = choose_pooling(info, settings.pooling)
    plain = must_stay_plain(
        partial(_attempt, settings, info, pooling), "embeds a first text", log, after_fork
    )
    loaded = _load(settings, info, pooling, log, plain=plain)
    plan = loaded.plan
    _report(settings, info, loaded, log)
    journal = open_journal(settings, plan.contexts + 1, clock)
    guard = Guard(journal)
    counter = open_counter(settings)
    pool = _fill_pool(settings, loaded, journal, guard, counter, timer)
    preparer = Preparer(
        loaded.tokenizer,
        journal,
        guard,
        slot=plan.contexts,
        limit=plan.limit,
        vocab=loaded.model.vocab_size,
    )
    tokenizing = tokenizing_thread(plan.limit)
    health = _health(settings, info, loaded, pool, plain=plain)
    app = EngineApp(preparer, tokenizing, pool, health)
    facts = {name: health.fixed[name] for name in ("width", "context", "pooling", "contexts")}
    return Engine(app, pool, tokenizing, journal, counter, facts)


def _threads(settings: Settings) -> int:
    return settings.threads or 1


def _attempt(settings: Settings, info: GGUFInfo, pooling: str, plain: bool) -> int:
    silent = Log("error", fd=os.open(os.devnull, os.O_WRONLY))
    try:
        loaded = _load(settings, info, pooling, silent, plain=plain)
        probe(loaded.context(_threads(settings)), loaded.tokenizer, loaded.plan.limit)
    except RefusedError as error:
        return error.exit_code
    return 0


def _load(settings: Settings, info: GGUFInfo, pooling: str, log: Log, *, plain: bool) -> _Loaded:
    model = Model(settings.model, info, LlamaLog(log), gpu_layers=settings.gpu_layers, plain=plain)
    plan = plan_sizes(
        info,
        model.behaviour(pooling),
        pooling,
        settings,
        cores=usable_cores(),
        memory=available_memory(),
    )
    return _Loaded(model, plan, pooling, Tokenizer(model))


def _report(settings: Settings, info: GGUFInfo, loaded: _Loaded, log: Log) -> None:
    """Log what was decided, and what somebody may not expect."""
    plan, cores = loaded.plan, usable_cores()
    log.write("info", "sized", architecture=info.architecture, cores=cores, **asdict(plan))
    if settings.n_ctx is not None and settings.n_ctx > plan.limit:
        log.write("warning", "n_ctx", message=f"the model has {plan.limit} positions, not more")
    if plan.limit < info.context_train and settings.n_ctx is None:
        log.write(
            "info",
            "n_ctx",
            message=f"texts of up to {plan.limit} tokens are taken, to bound memory; the model was"
            f" trained on {info.context_train}: set n_ctx for more",
        )
    warn_of_cores(settings, plan.contexts, _threads(settings), cores, log)
    if loaded.pooling == "last" and not loaded.tokenizer.ends_with_special():
        log.write(
            "warning",
            "pooling",
            message="the vector is that of the last token, and this file does not ask for a closing"
            " token (tokenizer.ggml.add_eos_token): many models made for this need one",
        )


def _fill_pool(
    settings: Settings,
    loaded: _Loaded,
    journal: Journal,
    guard: Guard,
    counter: EngineCounter,
    timer: Callable[[], float],
) -> Pool[Job, bytes]:
    """Make the decoders, each in its thread, and see that all give the same bits."""
    proofs: set[tuple[bytes, ...]] = set()

    def make(number: int) -> Decoder:
        context = loaded.context(_threads(settings))
        proofs.add(probe(context, loaded.tokenizer, loaded.plan.limit))
        return Decoder(context, journal, guard, number, counter.decoded)

    pool = Pool(
        make,
        loaded.plan.contexts,
        max_queue=settings.max_queue,
        clock=timer,
        on_wait=counter.waited,
    )
    if len(proofs) != 1 and settings.gpu_layers == 0:
        raise RefusedError("two contexts gave two vectors for one text")
    return pool


def _fingerprint(settings: Settings, info: GGUFInfo, loaded: _Loaded, *, plain: bool) -> str:
    """Return a name for what decides the bits of a vector, beside the file and the text."""
    decides = (engine_version(), info.architecture, loaded.pooling, settings.gpu_layers, plain)
    return f"fp_{blake2b(repr(decides).encode(), digest_size=8).hexdigest()}"


def _health(
    settings: Settings,
    info: GGUFInfo,
    loaded: _Loaded,
    pool: Pool[Job, bytes],
    *,
    plain: bool,
) -> Health:
    fixed = {
        "width": loaded.model.width,
        "context": loaded.plan.limit,
        "pooling": loaded.pooling,
        "vocab": loaded.model.vocab_size,
        "contexts": loaded.plan.contexts,
        "threads": _threads(settings),
        "architecture": info.architecture,
        "queue_limit": settings.max_queue,
        "restarts": settings.restarts,
        "engine": engine_version(),
        "fingerprint": _fingerprint(settings, info, loaded, plain=plain),
    }

    def moving() -> dict[str, Any]:
        return {
            "queue_depth": pool.waiting,
            "busy": pool.busy,
            "rss_bytes": resident_memory(),
        }

    return Health(fixed, moving)
