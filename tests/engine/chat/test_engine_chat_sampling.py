"""One token from logits: what each parameter does, checked against arithmetic written out here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="llama-cpp-python is missing (extra [local])")

from gateway.engine.chat.faults import DecodeFailedError, GrammarError
from gateway.engine.chat.sampling import (
    FAR,
    PATIENCE,
    RESERVED,
    Sampler,
    Sampling,
    fold,
    likeliest,
    log_probabilities,
)
from tests.engine.chat.writing import load
from tests.tiny_chat import write_chat

pytestmark = pytest.mark.engine

SEEDS = st.integers(-(1 << 63), (1 << 63) - 1)
ROOM = 64
FEW = 12
"""Tokens that can come at all in these tests; the first of them is FIRST."""
FIRST = 300


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """The tiny model's."""
    return load(write_chat(tmp_path_factory.mktemp("m") / "m.gguf")).vocabulary


def logits_of(vocabulary, few):
    """Return logits that are far down but for the first few letters'."""
    logits = np.full(vocabulary.size, -1e4, dtype=np.float32)
    logits[FIRST : FIRST + len(few)] = few
    return logits


def drawn(vocabulary, sampling, logits, count=1, choice=0):
    """Return the tokens of one answer whose logits are always the same."""
    sampler = Sampler(vocabulary, sampling, choice, ROOM)
    tokens = [sampler.pick(logits) for _ in range(count)]
    sampler.close()
    return tokens


@given(SEEDS, st.integers(0, 127))
def test_a_folded_seed_is_never_the_one_that_means_random(seed, choice):
    """llama.cpp would draw one of its own; and the same is always folded to the same."""
    assert 0 <= fold(seed, choice) < RESERVED
    assert fold(seed, choice) == fold(seed, choice)


def test_folded_seeds_differ():
    """Seeds that are near, equal in their lower half, or of other choices are other seeds."""
    seeds = [sign * (n << shift) for sign in (1, -1) for n in range(1, 200) for shift in (0, 32)]
    folded = {fold(seed, choice) for seed in seeds for choice in range(4)}
    assert len(folded) == len(set(seeds)) * 4


def test_a_folded_seed_is_the_same_in_every_version():
    """Answers can be had again by a later version only if this never changes."""
    assert [fold(0, 0), fold(123, 0), fold(123, 1), fold(-1, 0)] == [
        1222067678,
        1379016969,
        3374861444,
        3647838570,
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=FEW, max_size=FEW, unique=True),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.dictionaries(st.integers(FIRST, FIRST + FEW - 1), st.floats(-3, 3), max_size=3),
)
def test_bias_and_penalties_are_openais(vocabulary, few, presence, frequency, bias):
    """mu[j] -> mu[j] + bias[j] - count[j] * frequency - (count[j] > 0) * presence."""
    sampling = Sampling(
        seed=1,
        temperature=0.0,
        presence_penalty=presence,
        frequency_penalty=frequency,
        logit_bias=bias,
    )
    logits = logits_of(vocabulary, few)
    counts = np.zeros(vocabulary.size)
    for token in drawn(vocabulary, sampling, logits, count=20):
        expected = logits.astype(np.float64) - counts * frequency - (counts > 0) * presence
        for biased, by in bias.items():
            expected[biased] += by
        assert expected[token] == pytest.approx(expected.max(), abs=1e-4)
        counts[token] += 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_divides_the_logits(vocabulary, temperature):
    """3,000 answers come as often as the softmax says, to five standard deviations."""
    logits = logits_of(vocabulary, np.linspace(-1, 1, FEW))
    chances = np.exp(logits.astype(np.float64) / temperature)
    chances /= chances.sum()
    _compare(vocabulary, Sampling(seed=0, temperature=temperature), logits, chances)


def test_a_grammar_leaves_the_allowed_tokens_in_their_proportions(vocabulary):
    """To draw again when the first is refused is not to favour anything."""
    logits = logits_of(vocabulary, np.linspace(-1, 1, FEW))
    allowed = [FIRST, FIRST + 1, FIRST + 5]
    chances = np.zeros(vocabulary.size)
    chances[allowed] = np.exp(logits[allowed].astype(np.float64))
    chances /= chances.sum()
    letters = "".join(vocabulary.piece(token).decode() for token in allowed)
    grammar = f"root ::= [{letters}]"
    _compare(vocabulary, Sampling(seed=0, grammar=grammar), logits, chances)


def _compare(vocabulary, sampling, logits, chances, draws=3000):
    tokens = [drawn(vocabulary, sampling, logits, choice=n)[0] for n in range(draws)]
    seen = np.bincount(tokens, minlength=vocabulary.size)
    deviation = np.sqrt(draws * chances * (1 - chances))
    assert (np.abs(seen - draws * chances) <= 5 * deviation + 1e-6).all()


def test_top_p_keeps_the_nucleus(vocabulary):
    """The fewest of the likeliest tokens that come to top_p together; at 0 one is left."""
    few = np.log([0.4, 0.3, 0.2, 0.1])
    logits = logits_of(vocabulary, few)
    for top_p, kept in ((0.0, 1), (0.35, 1), (0.6, 2), (0.85, 3), (1.0, 4)):
        found = {
            drawn(vocabulary, Sampling(seed=seed, top_p=top_p), logits)[0] for seed in range(200)
        }
        assert found == set(range(FIRST, FIRST + kept))


def test_a_temperature_too_small_to_tell_from_none_is_none(vocabulary):
    """A logit divided by it would be infinite."""
    logits = logits_of(vocabulary, np.linspace(-1, 1, FEW))
    for temperature in (0.0, 1e-300, 1e-9):
        sampling = Sampling(seed=3, temperature=temperature)
        assert drawn(vocabulary, sampling, logits) == [FIRST + FEW - 1]
    assert drawn(vocabulary, Sampling(seed=3, temperature=1e-4), logits) == [FIRST + FEW - 1]


def test_a_token_that_stands_for_no_text_does_not_pass_a_grammar(vocabulary):
    """A grammar sees the name of a mark, the answer would not: it would not fit its grammar."""
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    (mark,) = vocabulary.tokenize(b"[INST]")
    logits[mark] = 50.0
    free, bound = Sampling(seed=1), Sampling(seed=1, grammar="root ::= .{50}")
    assert drawn(vocabulary, free, logits) == [mark]
    assert mark not in drawn(vocabulary, bound, logits, count=20)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_none_are_an_error(vocabulary, broken):
    """A broken model: to sort them is undefined, and a token drawn from them means nothing."""
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    logits[5] = broken
    sampler = Sampler(vocabulary, Sampling(seed=1), 0, ROOM)
    with pytest.raises(DecodeFailedError, match="numbers that are none"):
        sampler.pick(logits)
    sampler.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_from_which_no_token_goes_on_is_an_error(vocabulary, temperature):
    """llama.cpp would end the process over the token it would draw all the same."""
    sampling = Sampling(seed=1, temperature=temperature, grammar='root ::= "a" "\\x00"')
    sampler = Sampler(vocabulary, sampling, 0, ROOM)
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    assert vocabulary.piece(sampler.pick(logits)) == b"a"
    with pytest.raises(GrammarError, match="no token of the model goes on"):
        sampler.pick(logits)
    sampler.close()


def test_a_grammar_that_takes_too_long_is_an_error(vocabulary):
    """Some double what there is to follow with each token, until the memory is full."""
    times = iter([0.0, 0.1, 1.0, 1.0 + PATIENCE + 0.1])
    sampling = Sampling(seed=1, grammar="root ::= .*")
    sampler = Sampler(vocabulary, sampling, 0, ROOM, cpu=lambda: next(times))
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    sampler.pick(logits)
    with pytest.raises(GrammarError, match="too long"):
        sampler.pick(logits)
    sampler.close()


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32) | st.just(-np.inf), min_size=2, max_size=40),
    st.integers(0, 20),
)
def test_log_probabilities_are_a_distribution(numbers, count):
    """They add up to one, and the likeliest are the largest, in order, equal ones by number."""
    logits = np.array([*numbers, 0.0], dtype=np.float32)
    chances = log_probabilities(logits)
    assert np.exp(chances).sum() == pytest.approx(1.0, abs=1e-9)
    assert chances.min() >= FAR
    order = sorted(range(len(logits)), key=lambda token: (-chances[token], token))
    found = likeliest(chances, count)
    assert [chances[token] for token in found] == [chances[token] for token in order[:count]]
    assert len(set(found)) == min(count, len(logits))
