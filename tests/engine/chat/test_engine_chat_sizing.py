"""How a model and a machine become a limit, contexts and threads, and when they do not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.chat.sizing import CHUNK, DEFAULT_LIMIT, plan_chat
from gateway.engine.faults import RefusedError, ResourcesError
from gateway.engine.settings import Settings
from gateway.gguf import GGUFInfo

MIB = 1 << 20
LLAMA_8B = GGUFInfo(
    architecture="llama",
    name="an 8B model",
    context_train=131_072,
    width=4096,
    pooling=None,
    causal=True,
    vocab_size=128_256,
    has_chat_template=True,
    layers=32,
    heads=32,
    heads_kv=8,
    key_value_width=2048,
    feed_forward=14_336,
    file_type="Q4_K_M",
    size=4_921 * MIB,
)


def plan(info=LLAMA_8B, *, cores=8, memory=None, **settings):
    """Return the plan for settings that say no more than is named."""
    chosen = Settings(model="m", journal="j", journal_key="00", **settings)
    return plan_chat(info, chosen, cores=cores, memory=memory)


def test_an_8b_model_keeps_8192_tokens_in_one_gib():
    """One context of all cores but one, 128 KiB a token, however long it was trained for."""
    found = plan()
    assert (found.limit, found.chunk, found.contexts, found.threads) == (8192, CHUNK, 1, 7)
    assert found.kv_bytes == 1024 * MIB
    assert found.kv_bytes < found.context_bytes < found.kv_bytes + 128 * MIB


@given(
    st.integers(0, 1 << 20),
    st.none() | st.integers(1, 1 << 20),
    st.integers(1, 64),
    st.none() | st.integers(1, 64),
    st.none() | st.integers(1, 64),
)
def test_the_config_is_heard_within_what_the_model_can(trained, asked, cores, contexts, threads):
    """n_ctx up to what it was trained on; the cores but one are shared among the contexts."""
    info = replace(LLAMA_8B, context_train=trained)
    if not trained and asked is None:
        with pytest.raises(RefusedError, match="set n_ctx"):
            plan(info, cores=cores)
        return
    found = plan(info, cores=cores, n_ctx=asked, contexts=contexts, threads=threads)
    assert found.limit == min(asked or DEFAULT_LIMIT, trained or 1 << 20)
    assert found.contexts == (contexts or 1)
    assert found.threads == (threads or max(1, (cores - 1) // found.contexts))


def test_too_little_memory_is_said_in_numbers():
    """What is needed, what there is, and what to change."""
    need = LLAMA_8B.size + plan().context_bytes
    assert plan(memory=need).contexts == 1
    with pytest.raises(ResourcesError) as caught:
        plan(memory=need - 1)
    message = str(caught.value)
    assert f"{-(-need // MIB):,} MiB are needed" in message
    assert "4,921 for the weights" in message
    assert "1,024 remember a conversation of 8192 tokens" in message


def test_memory_is_counted_for_each_context_and_not_on_a_gpu():
    """A GPU's memory is not this machine's."""
    memory = LLAMA_8B.size + 3 * plan().context_bytes
    assert plan(memory=memory, contexts=3).contexts == 3
    with pytest.raises(ResourcesError):
        plan(memory=memory, contexts=4)
    assert plan(memory=1, contexts=4, gpu_layers=-1).contexts == 4


@pytest.mark.parametrize("other", [{"causal": False}, {"pooling": "last"}, {"pooling": "rank"}])
def test_an_embedding_model_is_refused(other):
    """It would write, but nothing that means anything."""
    with pytest.raises(RefusedError, match="embedding model"):
        plan(replace(LLAMA_8B, **other))
