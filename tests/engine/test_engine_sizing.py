"""Sizes follow from the model's numbers and the machine's, and refusals carry both."""

from dataclasses import replace

import pytest

from gateway.engine.faults import RefusedError, ResourcesError
from gateway.engine.settings import Settings
from gateway.engine.sizing import CHUNK, SHORT, Behaviour, choose_pooling, plan_sizes
from gateway.gguf import GGUFInfo

GIB = 1 << 30
ENCODER = Behaviour(has_memory=False, causal=False)
DECODER = Behaviour(has_memory=True, causal=True)
MINILM = GGUFInfo(
    architecture="bert",
    name=None,
    context_train=512,
    width=384,
    pooling="mean",
    causal=False,
    vocab_size=30522,
    has_chat_template=False,
    layers=6,
    heads=12,
    heads_kv=12,
    key_value_width=768,
    feed_forward=1536,
    file_type="Q8_0",
    size=25 << 20,
)
BGE_M3 = replace(
    MINILM, context_train=8192, width=1024, vocab_size=250_002, feed_forward=4096, size=GIB
)
QWEN = replace(
    MINILM,
    architecture="qwen3",
    context_train=32768,
    width=1024,
    pooling="last",
    causal=True,
    vocab_size=151_669,
    layers=28,
    key_value_width=2048,
    feed_forward=3072,
    size=GIB,
)


def settings(**fields):
    return Settings(socket="s", model="m", journal="j", journal_key="00", **fields)


def plan(info, behaviour, *, cores=4, memory=64 * GIB, **fields):
    pooling = choose_pooling(info, fields.get("pooling"))
    return plan_sizes(info, behaviour, pooling, settings(**fields), cores=cores, memory=memory)


def test_an_encoder_sees_a_whole_text_at_once():
    """Batch and limit are one, one context a core, short texts apart."""
    found = plan(MINILM, ENCODER)
    assert (512, 512, SHORT, 4) == (found.limit, found.batch, found.short, found.contexts)
    # Measured: outputs 62 MiB and 6 MiB of graph for 512 tokens.
    assert 60 << 20 < found.context_bytes < 100 << 20


def test_a_decoder_with_the_last_token_takes_chunks():
    """The KV cache holds the text, the batch a chunk of it; 32k trained are 8k by default."""
    found = plan(QWEN, DECODER)
    assert (8192, CHUNK) == (found.limit, found.batch)
    # Measured elsewhere: 940 MiB of cache and 621 MB of logits.
    assert 1.4 * GIB < found.context_bytes < 1.9 * GIB


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_decoder_pooled_over_all_tokens_sees_a_whole_text(pooling):
    """Chunks would pool the last one only."""
    found = plan(QWEN, DECODER, pooling=pooling, n_ctx=4096)
    assert (4096, 4096) == (found.limit, found.batch)
    assert found.context_bytes > 2 * 4096 * QWEN.vocab_size * 4


def test_a_decoder_that_looks_ahead_sees_a_whole_text():
    """Without causal attention a chunk would miss what follows."""
    found = plan(QWEN, Behaviour(has_memory=True, causal=False), n_ctx=1024)
    assert 1024 == found.batch


def test_a_large_vocabulary_lowers_the_default_limit_and_not_the_asked_one():
    """bge-m3 at 8192 tokens holds 8 GiB of zeros a context; by default it gets 3 GiB."""
    by_default = plan(BGE_M3, ENCODER)
    assert 2048 < by_default.limit < 4096
    assert by_default.limit % 256 == 0
    assert by_default.context_bytes <= 3 * GIB
    assert 8192 == plan(BGE_M3, ENCODER, n_ctx=8192, contexts=1).limit


def test_n_ctx_is_never_above_what_was_trained():
    """There are no positions beyond."""
    assert 512 == plan(MINILM, ENCODER, n_ctx=100_000).limit
    assert 100 == plan(MINILM, ENCODER, n_ctx=100).limit


def test_a_file_without_a_context_needs_n_ctx():
    """Nothing to guess from."""
    silent = replace(MINILM, context_train=0)
    with pytest.raises(RefusedError, match="set n_ctx"):
        plan(silent, ENCODER)
    assert 300 == plan(silent, ENCODER, n_ctx=300).limit


def test_tiny_contexts_have_one_way_only():
    """All texts are short."""
    found = plan(MINILM, ENCODER, n_ctx=40)
    assert (40, 40) == (found.limit, found.short)


def test_contexts_are_as_many_as_memory_holds():
    """One a core by default, fewer where they would not fit."""
    per_context = plan(BGE_M3, ENCODER).context_bytes
    memory = (GIB + 3 * per_context) * 5 // 4 + 10
    assert 3 == plan(BGE_M3, ENCODER, cores=64, memory=memory).contexts
    assert 64 == plan(BGE_M3, ENCODER, cores=64, memory=None).contexts


def test_too_many_contexts_are_refused_with_the_numbers():
    """What is needed, what is there, and for what."""
    with pytest.raises(ResourcesError) as refused:
        plan(QWEN, DECODER, contexts=8, memory=4 * GIB)
    message = str(refused.value)
    assert "4,096 are available" in message
    assert "1,024 for the weights" in message
    assert "8 context(s)" in message
    assert 4 == refused.value.exit_code


def test_one_context_that_does_not_fit_is_refused_by_default_too():
    """There is no smaller pool than one."""
    with pytest.raises(ResourcesError, match=r"1 context\(s\)"):
        plan(QWEN, DECODER, memory=2 * GIB)


def test_a_gpu_has_its_own_memory_and_one_way_for_all_texts():
    """This machine's memory says nothing about it."""
    found = plan(QWEN, DECODER, gpu_layers=-1, memory=GIB)
    assert (1, 0) == (found.contexts, found.short)


@pytest.mark.parametrize(
    ("asked", "in_file", "causal", "expected"),
    [(None, "mean", False, "mean"), ("cls", "mean", False, "cls"), ("last", None, True, "last")],
)
def test_pooling_is_the_configs_or_the_files(asked, in_file, causal, expected):
    """The config has the last word."""
    assert expected == choose_pooling(replace(MINILM, pooling=in_file, causal=causal), asked)


@pytest.mark.parametrize(
    ("asked", "in_file", "causal", "said"),
    [
        (None, None, True, "language model"),
        (None, "none", True, "language model"),
        (None, None, False, "does not say how one vector"),
        (None, "rank", False, "reranking"),
        ("mean", "rank", False, "reranking"),
        ("none", "mean", False, 'pooling = "none"'),
        ("rank", "mean", False, 'pooling = "rank"'),
    ],
)
def test_what_makes_no_vector_is_refused(asked, in_file, causal, said):
    """Each with the reason, and what to set."""
    with pytest.raises(RefusedError, match=said):
        choose_pooling(replace(MINILM, pooling=in_file, causal=causal), asked)
