"""How long a conversation may be and how many are written at once, from a model and a machine.

Decides only: no llama.cpp, no system calls. A context's memory is its KV cache, which is there from
the start and grows with the limit, and what is computed on the way, which grows with the chunk.
"""

from dataclasses import dataclass

from gateway.engine.faults import RefusedError, ResourcesError
from gateway.engine.settings import Settings
from gateway.engine.sizing import FLOAT, HALF, PAGE
from gateway.gguf import GGUFInfo

CHUNK = 256
"""Tokens of a prompt decoded at a time. Part of what decides the bits. Measured on 8 layers of 768
in q8_0, one thread: 873 tokens/s with 64, 862 with 128, 885 with 256, 882 with 512. What two
prompts share is reused in wholes of it, so it is no larger than it must be."""
DEFAULT_LIMIT = 8192
"""Longest conversation where the config asks for nothing, for models that could take more."""
SPARED = 1
"""Cores left to others. llama.cpp's threads wait for each other busily, some hundred times a token,
so one that has to wait for its core holds up all. Measured on two cores, 8 layers of 768 in q8_0:
two threads write 320 tokens/s beside some 40 cached embeddings a second and 18 beside 1,000, whose
gateway comes first; one thread writes 250 beside either."""


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """The sizes an engine for chat runs with."""

    limit: int
    """Tokens of prompt and answer together."""
    chunk: int
    """Tokens of a prompt decoded at a time."""
    contexts: int
    """Answers written at once."""
    threads: int
    """Threads that compute for one of them."""
    kv_bytes: int
    """What one context remembers a conversation in."""
    context_bytes: int
    """Estimate of one context, `kv_bytes` included."""
    weights_bytes: int


def plan_chat(info: GGUFInfo, settings: Settings, *, cores: int, memory: int | None) -> ChatPlan:
    """Return the sizes for this model on this machine; raises RefusedError or ResourcesError.

    `memory` is what is still available, in bytes, with the weights not yet counted; None is
    unknown. On a GPU the memory is not this machine's, and is not checked.
    """
    if not info.causal or info.pooling not in (None, "none"):
        raise RefusedError(
            f"this is an embedding model ({info.architecture}): it cannot write answers; serve it"
            ' with task = "embedding"'
        )
    limit = _limit(info, settings.n_ctx)
    kv = -(-limit // PAGE) * PAGE * info.layers * info.key_value_width * HALF
    per_context = kv + _computed(info, limit)
    contexts = settings.contexts or 1
    need = info.size + contexts * per_context
    if memory is not None and need > memory and settings.gpu_layers == 0:
        raise ResourcesError(
            f"{_mib(need)} MiB are needed and {_mib(memory)} are available: {_mib(info.size)} for"
            f" the weights, and {contexts} context(s) of {_mib(per_context)}, of which {_mib(kv)}"
            f" remember a conversation of {limit} tokens; set a smaller n_ctx or fewer contexts"
        )
    return ChatPlan(
        limit=limit,
        chunk=CHUNK,
        contexts=contexts,
        threads=settings.threads or max(1, (cores - SPARED) // contexts),
        kv_bytes=kv,
        context_bytes=per_context,
        weights_bytes=info.size,
    )


def _limit(info: GGUFInfo, asked: int | None) -> int:
    trained = info.context_train
    if asked is not None:
        return min(asked, trained) if trained else asked
    if not trained:
        raise RefusedError("the file does not say how long a conversation may be; set n_ctx")
    return min(trained, DEFAULT_LIMIT)


def _computed(info: GGUFInfo, limit: int) -> int:
    """Return what llama.cpp computes in for a chunk, and the logits of one token."""
    activations = CHUNK * (8 * info.width + 3 * info.feed_forward) * FLOAT
    mask = CHUNK * -(-limit // PAGE) * PAGE * HALF
    # In llama.cpp's graph, its answer, our copy, and the sampler's candidates of three words.
    logits = 6 * info.vocab_size * FLOAT
    return activations + mask + logits


def _mib(size: int) -> str:
    return f"{-(-size // (1 << 20)):,}"
