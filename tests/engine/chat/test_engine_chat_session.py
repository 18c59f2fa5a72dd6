"""The same prompt and seed are the same bits, whatever a session did before or others do beside."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="llama-cpp-python is missing (extra [local])")

from gateway.engine.chat.context import Cancel, Lane, bit_options
from gateway.engine.chat.faults import DecodeFailedError, GrammarError, StoppedError
from gateway.engine.chat.sampling import Sampling
from gateway.engine.faults import RefusedError
from gateway.engine.model import Model
from gateway.gguf import describe
from tests.engine.chat.writing import LOG, load, text, written
from tests.tiny_chat import write_chat, write_recurrent
from tests.tiny_gguf import write_encoder

pytestmark = pytest.mark.engine

CHUNK, LIMIT = 32, 256
PAIRS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
SAMPLINGS = (
    Sampling(seed=1, temperature=0.0, top_logprobs=3),
    Sampling(seed=-(1 << 63), top_logprobs=0),
    Sampling(seed=7, top_p=0.8, presence_penalty=1.0, frequency_penalty=0.5, logit_bias={350: 4.0}),
    Sampling(seed=3, grammar='root ::= "{" [a-z ]{0,12} "}"', top_logprobs=1),
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """float32: there the bits depend most on how a prompt is cut."""
    return load(write_chat(tmp_path_factory.mktemp("m") / "m.gguf", context=LIMIT), chunk=CHUNK)


@pytest.fixture(scope="module")
def fresh(loaded):
    """Return a function: what a session that never did anything writes."""

    def write(prompt, *samplings):
        session = loaded.session()
        try:
            return written(session, prompt, *samplings)
        finally:
            session.close()

    return write


@pytest.fixture
def session(loaded):
    made = loaded.session()
    yield made
    made.close()


def prompts(shared=()):
    """Prompts of plain tokens, some of which begin with `shared`."""
    tokens = st.lists(st.integers(290, 400), min_size=1, max_size=LIMIT - 60)
    return tokens if not shared else tokens.map(lambda found: [*shared, *found][: LIMIT - 60])


def expected_reuse(before, prompt):
    """Return the whole chunks that two prompts have in common; the last token is always decoded."""
    same = 0
    for one, other in zip(before, prompt, strict=False):
        if one != other:
            break
        same += 1
    whole = len(before) // CHUNK * CHUNK
    return min(same, whole, len(prompt) - 1) // CHUNK * CHUNK


def test_how_a_prompt_is_cut_shows_in_the_bits(loaded):
    """Or else no test here could fail: other chunks, other logits."""
    prompt = [290 + n for n in range(100)]
    other = replace(loaded, plan=replace(loaded.plan, chunk=33))
    sessions = [loaded.session(), other.session()]
    one, two = (session.prefill(prompt, Cancel()).logits for session in sessions)
    assert np.allclose(one, two, atol=1e-3)
    assert one.tobytes() != two.tobytes()
    for session in sessions:
        session.close()


@PAIRS
@given(st.data())
def test_a_shared_prefix_changes_no_bit(loaded, fresh, data):
    """After another prompt with the same beginning: fewer tokens decoded, same logits, answers."""
    before = data.draw(prompts())
    keep = data.draw(st.integers(0, len(before)))
    prompt = data.draw(prompts(before[:keep]))
    session = loaded.session()
    written(session, before, *SAMPLINGS[:2])
    assert session.prefill(prompt, Cancel()).reused == expected_reuse(before, prompt)
    assert written(session, prompt, *SAMPLINGS) == fresh(prompt, *SAMPLINGS)
    session.close()


def test_nothing_is_reused_of_another_owners_prompt(loaded):
    """How much was, and how soon the answer begins, would tell how the other's prompt begins."""
    session = loaded.session()
    prompt = [290 + n for n in range(100)]
    asked = [("one", 0), ("one", 96), ("two", 0), ("one", 0), ("one", 96), ("", 0)]
    found = [(o, session.prefill(prompt, Cancel(), owner=o).reused) for o, _ in asked]
    assert asked == found
    session.close()


@pytest.mark.parametrize(
    "kind", [GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0], ids=["f16", "q8_0"]
)
def test_a_shared_prefix_changes_no_bit_with_other_weights_and_threads(tmp_path, kind):
    """Other kernels, which share the work among two threads; short, as these wait busily."""
    path = write_chat(tmp_path / "m.gguf", context=LIMIT, kind=kind, layers=1)
    loaded = load(path, threads=2)
    brief = Sampling(seed=3, grammar='root ::= "{" [a-z]{0,3} "}"', top_logprobs=1)
    reusing, fresh = loaded.session(), loaded.session()
    for size in (33, 65, 64):
        prompt = [290 + 3 * n % 100 for n in range(size - 1)] + [300 + size]
        found = written(reusing, prompt, brief)
        fresh.close()
        assert found == written(fresh, prompt, brief)
    reusing.close()
    fresh.close()


def test_a_model_that_cannot_go_back_begins_again(tmp_path):
    """Mamba has a state and no cache: nothing is reused, and choices read their prompt anew."""
    loaded = load(write_recurrent(tmp_path / "m.gguf", context=LIMIT))
    session = loaded.session()
    prompt = [290 + n % 100 for n in range(80)]
    first = written(session, prompt, *SAMPLINGS)
    assert session.prefill(prompt, Cancel()).reused == 0
    assert written(session, prompt, *SAMPLINGS) == first
    prefilled = session.prefill(prompt, Cancel())
    for number in (3, 0, 2, 1):
        assert list(prefilled.choice(SAMPLINGS[number], number)) == first[1 + number]
    session.close()


def test_a_model_that_cannot_go_on_with_a_text_is_refused(tmp_path):
    """An encoder, whatever its file says of itself."""
    path = write_encoder(tmp_path / "m.gguf")
    plan = load(write_chat(tmp_path / "chat.gguf")).plan
    model = Model(str(path), describe(path), LOG, gpu_layers=0, plain=False)
    with pytest.raises(RefusedError, match="not made for chat"):
        Lane(model, plan)


def refused(session, prompt):
    """Leave a session with an answer that a grammar broke off."""
    prefilled = session.prefill(prompt, Cancel())
    with pytest.raises(GrammarError):
        list(prefilled.choice(Sampling(seed=1, grammar='root ::= "\\x00"'), 0))


def broken(session, prompt):
    """Leave a session with a decode that failed in the middle of a prompt."""
    with pytest.raises(DecodeFailedError):
        session.prefill([*prompt, 1 << 30], Cancel())


def stopped(session, prompt):
    """Leave a session with an answer that was called off after two tokens."""
    cancel = Cancel()
    answer = session.prefill(prompt, cancel).choice(Sampling(seed=2, logit_bias=NEVER_END), 0)
    next(answer)
    next(answer)
    cancel.stop()
    with pytest.raises(StoppedError):
        next(answer)


def left(session, prompt):
    """Leave a session with an answer that nobody read to its end."""
    answer = session.prefill(prompt, Cancel()).choice(Sampling(seed=2), 0)
    next(answer)
    answer.close()


def full(session, prompt):
    """Leave a session with a context that is full."""
    answer = list(
        session.prefill(prompt, Cancel()).choice(Sampling(seed=5, logit_bias=NEVER_END), 0)
    )
    assert len(prompt) + len(answer) == LIMIT


NEVER_END = dict.fromkeys((2, 3, 4), -100.0)


@settings(PAIRS, max_examples=15)
@given(st.lists(st.sampled_from([refused, broken, stopped, left, full]), max_size=4), st.data())
def test_nothing_that_went_before_changes_a_bit(loaded, fresh, before, data):
    """Failures, refusals, calls off and full contexts, in any order, over prompts that share."""
    session = loaded.session()
    prompt = data.draw(prompts())
    for leave in before:
        leave(session, data.draw(prompts(prompt[: data.draw(st.integers(0, len(prompt)))])))
    assert written(session, prompt, *SAMPLINGS) == fresh(prompt, *SAMPLINGS)
    session.close()


def test_a_choice_is_the_same_alone_and_among_others(loaded, session):
    """Choices begin from the prompt, not from each other, in any order, and again."""
    prompt = loaded.turn("the journey to Mars")
    alone = [
        list(session.prefill(prompt, Cancel()).choice(Sampling(seed=9), number))
        for number in range(4)
    ]
    prefilled = session.prefill(prompt, Cancel())
    for number in (3, 1, 0, 2, 1, 3):
        assert list(prefilled.choice(Sampling(seed=9), number)) == alone[number]
    assert len({text(answer) for answer in alone}) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_seeds_differ_unless_the_likeliest_is_wanted(loaded, session, temperature):
    """Ten seeds, several answers; at temperature 0 one."""
    prefilled = session.prefill(loaded.turn("hello"), Cancel())
    answers = {
        text(prefilled.choice(Sampling(seed=seed, temperature=temperature), 0))
        for seed in range(10)
    }
    assert len(answers) == 1 if temperature == 0.0 else len(answers) > 5


def test_prompts_differ(loaded, session):
    """What a model answers depends on what it is asked."""
    answers = {
        text(session.prefill(loaded.turn(asked), Cancel()).choice(Sampling(seed=1), 0))
        for asked in ("hello", "the red sky", "日本")
    }
    assert len(answers) == 3


def test_sessions_beside_each_other_write_what_they_write_alone(loaded, fresh):
    """Four threads over one model, each with prompts of its own."""
    asked = [[290 + (7 * n + 3 * at) % 100 for at in range(20 + 25 * n)] for n in range(6)]
    alone = [fresh(prompt, *SAMPLINGS) for prompt in asked]

    def work(turn):
        session = loaded.session()
        order = [(turn + n) % len(asked) for n in range(len(asked))]
        found = {n: written(session, asked[n], *SAMPLINGS) for n in order}
        session.close()
        return [found[n] for n in range(len(asked))]

    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(work, range(4)):
            assert found == alone


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A model that needs a while for one chunk of 4,000 tokens."""
    path = tmp_path_factory.mktemp("slow") / "slow.gguf"
    return load(write_chat(path, context=4096, width=128, layers=4), chunk=4096)


def test_a_prompt_is_called_off_in_the_middle_of_a_chunk(slow):
    """The computation stops, and what the context then writes has the same bits as ever."""
    prompt = [290 + n % 100 for n in range(4000)]
    session = slow.session()
    expected = written(session, prompt[:500], *SAMPLINGS)
    cancel = Cancel()
    timer = threading.Timer(0.02, cancel.stop)
    timer.start()
    with pytest.raises(StoppedError):
        session.prefill(prompt, cancel)
    timer.join()
    assert cancel.stopped
    assert written(session, prompt[:500], *SAMPLINGS) == expected
    session.close()


def test_what_was_called_off_before_it_began_is_not_begun(session):
    """A client may be gone before its turn comes."""
    cancel = Cancel()
    cancel.stop()
    with pytest.raises(StoppedError):
        session.prefill([300], cancel)


@pytest.mark.parametrize("size", [0, LIMIT])
def test_a_prompt_that_cannot_be_is_refused(session, size):
    """Callers have checked; llama.cpp would abort."""
    with pytest.raises(ValueError, match=f"a prompt of {size} tokens"):
        session.prefill([300] * size, Cancel())


def test_the_longest_prompt_has_room_for_one_token(loaded, session):
    """Prompt and answer together are never more than the limit."""
    prefilled = session.prefill([300] * (LIMIT - 1), Cancel())
    assert len(list(prefilled.choice(Sampling(seed=1), 0))) == 1


def test_an_answer_ends_when_another_begins(loaded, session):
    """One context holds one answer: to go on with the first would be to make things up."""
    prefilled = session.prefill(loaded.turn("hello"), Cancel())
    first = prefilled.choice(Sampling(seed=1, logit_bias=NEVER_END), 0)
    next(first)
    second = prefilled.choice(Sampling(seed=1), 1)
    next(second)
    with pytest.raises(RuntimeError, match="has begun"):
        next(first)
    session.prefill([300], Cancel())
    with pytest.raises(RuntimeError, match="not in the session"):
        next(prefilled.choice(Sampling(seed=1), 0))


def test_log_probabilities_are_the_models_own(loaded, session):
    """Bias, penalties and temperature leave them alone; the likeliest come first."""
    prefilled = session.prefill(loaded.turn("hello"), Cancel())
    logits = prefilled.logits.astype(np.float64)
    chances = logits - np.log(np.exp(logits).sum())
    sampling = Sampling(seed=1, temperature=0.3, logit_bias={300: 100.0}, top_logprobs=20)
    first = next(prefilled.choice(sampling, 0))
    assert first.token == 300
    assert first.logprob == pytest.approx(chances[300], abs=1e-9)
    assert [token for token, _, _ in first.top] == list(np.argsort(-chances, kind="stable")[:20])
    for token, piece, logprob in first.top:
        assert piece == loaded.vocabulary.piece(token)
        assert logprob == pytest.approx(chances[token], abs=1e-9)


def test_probabilities_are_only_computed_where_they_are_wanted(loaded, session):
    """None asked for, none given; 0 is the chosen token's alone."""
    prefilled = session.prefill(loaded.turn("hello"), Cancel())
    none, some = (
        next(prefilled.choice(Sampling(seed=1, top_logprobs=top), 0)) for top in (None, 0)
    )
    assert (none.logprob, none.top) == (None, ())
    assert some.logprob is not None
    assert some.top == ()


def test_the_end_is_said_and_has_no_text(loaded, session):
    """An end token is the last one, and its name is not part of the answer."""
    prefilled = session.prefill(loaded.turn("hello"), Cancel())
    answer = list(prefilled.choice(Sampling(seed=1, logit_bias={3: 100.0}), 0))
    assert [(sampled.piece, sampled.end) for sampled in answer] == [(b"", True)]


def test_the_options_that_change_bits_are_told_apart(loaded):
    """The fingerprint is made of them."""
    plan = loaded.plan
    plans = [plan, *(replace(plan, **{name: 7}) for name in ("chunk", "limit", "threads"))]
    found = [bit_options(plan, gpu_layers=0, plain=False) for plan in plans]
    found += [bit_options(plan, gpu_layers=1, plain=False)]
    found += [bit_options(plan, gpu_layers=0, plain=True)]
    assert len(set(found)) == len(found)
    assert bit_options(replace(plan, contexts=9), gpu_layers=0, plain=False) == found[0]
