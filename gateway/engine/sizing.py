"""How long a text may be and how many are decoded at once, from a model's numbers and a machine's.

Decides only: no llama.cpp, no system calls. The rules are llama.cpp's own preconditions, each of
which is an assert there that would end the process:

- an encoder, and a decoder whose vector is made of all tokens (mean, cls), sees a whole text in one
  micro-batch, so the batch is as large as the longest text;
- a causal decoder whose vector is its last token's fills its KV cache in chunks of CHUNK tokens;
- no text is longer than what the model has positions for.

Memory (measured on llama.cpp 0.5, within 15 % of the compute and output buffers it reports): every
token of a batch is an output, so a context holds batch x (vocabulary + width) floats for outputs,
zeroed and therefore resident, and for a model with a language head the same again in its graph.
"""

from dataclasses import dataclass

from gateway.engine.faults import RefusedError, ResourcesError
from gateway.engine.settings import Settings
from gateway.gguf import GGUFInfo

CHUNK = 512
"""Tokens decoded at a time into a KV cache. Part of what decides the bits: do not tune it."""
SHORT = 63
"""Texts up to here go without flash attention, whose tiles begin at 64 rows: measured on MiniLM,
32 tokens take 12.4 ms without and 20.1 with it, 92 tokens 47 and 34. It depends on the text alone,
so the bits do too."""
DEFAULT_LIMIT = 8192
"""Longest text where the config asks for nothing, for models that could take more."""
DEFAULT_BYTES = 3 << 30
"""What one context may come to where the config asks for nothing."""
ID_BYTES = 4
"""Tokens travel as bytes of little-endian int32, which is what llama.cpp reads."""
FLOAT = 4
HALF = 2
PAGE = 256
"""llama.cpp rounds a context up to multiples of this."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What only the loaded model tells: it keeps a KV cache, and whether it looks ahead."""

    has_memory: bool
    causal: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes an engine runs with."""

    limit: int
    """Tokens of the longest text."""
    batch: int
    """Tokens of one decode: `limit`, or CHUNK."""
    short: int
    """Longest text that goes without flash attention; 0 where all go with it (GPU)."""
    contexts: int
    context_bytes: int
    """Estimate of one context when it has seen its longest text."""
    weights_bytes: int


def choose_pooling(info: GGUFInfo, asked: str | None) -> str:
    """Return mean, cls or last; raises RefusedError with an explanation."""
    if asked is not None and asked not in ("mean", "cls", "last"):
        raise RefusedError(
            f'pooling = "{asked}" does not make one vector of a text; use "mean", "cls" or "last"'
        )
    if info.pooling == "rank":
        raise RefusedError(
            "this is a reranking model: it scores pairs of texts and has no embeddings"
            f" ({info.architecture}.pooling_type is rank)"
        )
    pooling = asked or info.pooling
    if pooling not in (None, "none"):
        return pooling
    if info.causal:
        raise RefusedError(
            f"this is a language model ({info.architecture}), not an embedding model: the file"
            " does not say how one vector is made of its tokens. If it is meant for embeddings,"
            ' say how: pooling = "last" for most of those made from language models, else "mean"'
        )
    raise RefusedError(
        f"the file ({info.architecture}) does not say how one vector is made of its tokens; the"
        ' model\'s card does: set pooling = "mean" (most sentence-transformers) or "cls" (BGE)'
    )


def plan_sizes(
    info: GGUFInfo,
    behaviour: Behaviour,
    pooling: str,
    settings: Settings,
    *,
    cores: int,
    memory: int | None,
) -> Plan:
    """Return the sizes for this model on this machine; raises RefusedError or ResourcesError.

    `memory` is what is still available, in bytes, with the weights not yet counted; None is
    unknown. On a GPU the memory is not this machine's, and is not checked.
    """
    shape = _Shape(info, behaviour, chunked=_chunked(behaviour, pooling), gpu=_on_gpu(settings))
    limit = _limit(shape, settings.n_ctx)
    per_context = shape.context_bytes(limit)
    contexts = settings.contexts
    if contexts is None:
        contexts = _affordable(shape, per_context, cores, memory)
    need = info.size + contexts * per_context
    if memory is not None and need > memory and not shape.gpu:
        raise ResourcesError(
            f"{_mib(need)} MiB are needed and {_mib(memory)} are available: {_mib(info.size)} for"
            f" the weights, and {contexts} context(s) of {_mib(per_context)} for texts of up to"
            f" {limit} tokens; set a smaller n_ctx or fewer contexts"
        )
    return Plan(
        limit=limit,
        batch=shape.batch(limit),
        short=shape.short(limit),
        contexts=contexts,
        context_bytes=per_context,
        weights_bytes=info.size,
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    info: GGUFInfo
    behaviour: Behaviour
    chunked: bool
    gpu: bool

    def batch(self, limit: int) -> int:
        return min(limit, CHUNK) if self.chunked else limit

    def short(self, limit: int) -> int:
        return 0 if self.gpu else min(limit, SHORT)

    def context_bytes(self, limit: int) -> int:
        """Return the estimate for one thread: its context, and the small one for short texts."""
        short = self.short(limit)
        return self._bytes(short) + (self._bytes(limit) if limit > short else 0)

    def _bytes(self, limit: int) -> int:
        info, batch = self.info, self.batch(limit)
        cells = -(-limit // PAGE) * PAGE
        outputs = batch * (info.vocab_size + info.width) * FLOAT
        activations = batch * (8 * info.width + 3 * info.feed_forward) * FLOAT
        mask = batch * cells * (FLOAT + HALF)
        if not self.behaviour.has_memory:
            return outputs + activations + mask
        head = batch * info.vocab_size * FLOAT
        cache = cells * info.layers * info.key_value_width * HALF
        return outputs + activations + mask + head + cache


def _chunked(behaviour: Behaviour, pooling: str) -> bool:
    return pooling == "last" and behaviour.has_memory and behaviour.causal


def _on_gpu(settings: Settings) -> bool:
    return settings.gpu_layers != 0


def _limit(shape: _Shape, asked: int | None) -> int:
    trained = shape.info.context_train
    if asked is not None:
        return min(asked, trained) if trained else asked
    if not trained:
        raise RefusedError("the file does not say how long a text may be; set n_ctx")
    limit = min(trained, DEFAULT_LIMIT)
    while limit > CHUNK and shape.context_bytes(limit) > DEFAULT_BYTES:
        limit = (limit - 1) // PAGE * PAGE
    return limit


def _affordable(shape: _Shape, per_context: int, cores: int, memory: int | None) -> int:
    """Return one context a core, or as many as four fifths of the memory hold, at least one."""
    if shape.gpu:
        return 1
    if memory is None:
        return cores
    room = (memory * 4 // 5 - shape.info.size) // per_context
    return max(1, min(cores, room))


def _mib(size: int) -> str:
    return f"{-(-size // (1 << 20)):,}"
