"""One text, one vector, bit for bit: at any load, with any number of contexts and threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.running_engine import in_background

pytestmark = pytest.mark.engine

WORDS = ["the", "man", "bites", "dog", "hello", "world", "green", "fruit", "a", "z9", "!"]


def some_texts(count: int, longest: int) -> list[str]:
    random = np.random.default_rng(7)
    sizes = random.integers(1, longest, count)
    return [" ".join(random.choice(WORDS, size)) for size in sizes]


def alone(engine, texts):
    return {text: engine.vectors([text])[0] for text in texts}


@pytest.mark.parametrize(("name", "longest"), [("encoder", 55), ("decoder", 150)])
def test_neighbours_contexts_threads_and_restarts_do_not_change_a_bit(start, models, name, longest):
    """The vector of a text that was alone is the one it gets in any batch of any engine."""
    texts = some_texts(25, longest)
    expected = alone(start(models[name], contexts=1), texts)
    together = start(models[name], contexts=2).vectors(texts * 2)
    assert together == [expected[text] for text in texts * 2]
    # Two threads wait for each other busily: few texts, the longest among them.
    few = sorted(texts, key=len)[::3]
    assert [expected[text] for text in few] == start(models[name], threads=2).vectors(few)


def test_lengths_about_the_seams_do_not_depend_on_threads(start, models):
    """Where short texts end, where chunks end, and one token beyond: same bits from 2 threads."""
    lengths = [1, 2, 62, 63, 64, 65, 511, 512, 513, 514, 1024, 1025, 1500]
    texts = [[1 + n % 290 for n in range(length)] for length in lengths]
    one = start(models["decoder"], contexts=1, threads=1).vectors(texts)
    two = start(models["decoder"], contexts=1, threads=2).vectors(texts[::-1])[::-1]
    assert one == two


def test_the_bundled_model_gives_the_same_bits_to_32_clients(start, minilm):
    """32 clients with overlapping batches all get the vectors the texts had alone."""
    engine = start(minilm, contexts=2)
    texts = some_texts(24, 40) + some_texts(3, 200)
    expected = alone(engine, texts)

    def client(number):
        random = np.random.default_rng(number)
        chosen = [texts[at] for at in random.integers(0, len(texts), 3)]
        with engine.new_client() as http:
            data = http.post("/v1/embeddings", json={"input": chosen}).json()["data"]
        return chosen, [item["embedding"] for item in data]

    encoded = {text: engine.ask([text])["data"][0]["embedding"] for text in texts}
    with ThreadPoolExecutor(32) as clients:
        for chosen, got in clients.map(client, range(32)):
            assert got == [encoded[text] for text in chosen]
    assert expected == alone(engine, texts)


def test_the_bundled_model_means_what_it_should(start, minilm):
    """384 components, and like texts are nearer than unlike ones."""
    engine = start(minilm, contexts=1)
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    rows = np.array([np.frombuffer(vector, "<f4") for vector in engine.vectors(texts)])
    assert (3, 384) == rows.shape
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = unit @ unit.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    texts=st.lists(
        st.text(max_size=80) | st.lists(st.integers(0, 80), min_size=1, max_size=120),
        min_size=1,
        max_size=8,
    )
)
def test_any_batch_is_its_texts_one_by_one(encoder, texts):
    """A batch is nothing but its texts, whatever they are."""
    counts = encoder.post({"input": texts}, "/tokenize").json()["input_tokens"]
    answer = encoder.ask(texts)
    assert counts == answer["input_tokens"]
    assert sum(counts) == answer["usage"]["total_tokens"]
    assert encoder.vectors(texts) == [encoder.vectors([text])[0] for text in texts]


def test_a_vector_does_not_depend_on_what_the_context_did_before(encoder):
    """Long and short texts in turn leave nothing behind."""
    short, long = "dog", "man bites dog " * 40
    expected = encoder.vectors([short, long])
    with in_background(lambda: encoder.vectors([long, short] * 50)) as results:
        assert expected == encoder.vectors([short, long])
    assert [[*expected[::-1]] * 50] == results
