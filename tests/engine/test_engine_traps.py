"""Everything that makes llama.cpp abort or cut in silence is a clear refusal, and nobody dies."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.running_engine import EngineEndedError, RunningEngine
from tests.tiny_gguf import PoolingType, cut, write_decoder, write_encoder, write_header

pytestmark = pytest.mark.engine

CLS, SEP, LIMIT = 2, 3, 128
WORD = "dog "


def test_a_text_of_the_longest_length_is_embedded(encoder):
    """As many tokens as the model has positions, specials included, are no error."""
    answer = encoder.ask([WORD * (LIMIT - 2), [CLS, *[9] * (LIMIT - 2), SEP]])
    assert [LIMIT, LIMIT] == answer["input_tokens"]
    assert [False, False] == answer["truncated"]


@pytest.mark.parametrize(
    "text", [WORD * (LIMIT - 1), [9] * (LIMIT + 1), WORD * 5000], ids=["text", "ids", "very long"]
)
def test_a_text_beyond_the_positions_is_refused_in_openais_words(encoder, text):
    """llama.cpp would abort in get_rows, or cut the text without a word."""
    pid = encoder.process.pid
    count = len(text) if isinstance(text, list) else len(text) // len(WORD) + 2
    status, error = encoder.error({"input": ["fine", text]})
    assert (400, "context_length_exceeded", 1) == (status, error["code"], error["item"])
    assert error["message"] == (
        f"This model's maximum context length is {LIMIT} tokens, however you requested {count}"
        f" tokens ({count} in your prompt; 0 for the completion). Please reduce your prompt; or"
        " completion length."
    )
    assert encoder.process.poll() is None
    assert pid == encoder.process.pid


def test_a_text_too_large_to_tokenize_is_refused_by_its_bytes(encoder):
    """Some tokenizers recurse once a character; past a bound none is asked."""
    status, error = encoder.error({"input": ["x" * 200_000]})
    assert (400, "context_length_exceeded") == (status, error["code"])
    assert "your text has 200000 bytes" in error["message"]


@pytest.mark.parametrize(
    ("inputs", "item"),
    [
        ([[]], 0),
        (["fine", []], 1),
        ([[5, -1]], 0),
        ([[5], [149_000]], 1),
        ([[2**40]], 0),
        (["fine", 3], 1),
        (["fine", None], 1),
        ([[1.5]], 0),
        ([[True]], 0),
        (["fine", ["text"]], 1),
    ],
    ids=str,
)
def test_an_item_at_fault_is_named_and_nothing_is_decoded(encoder, inputs, item):
    """A bad item is a 400 with its position, before any of the request is decoded."""
    before = encoder.counts().texts
    status, error = encoder.error({"input": inputs})
    assert (400, "input", item) == (status, error["param"], error.get("item"))
    assert before == encoder.counts().texts


@pytest.mark.parametrize(
    "body", [{}, {"input": []}, {"input": "a"}, {"input": ["a"] * 2049}, [], None, {"input": {}}]
)
def test_a_body_of_the_wrong_shape_is_a_400(encoder, body):
    """No list of one to 2048 inputs, no vectors."""
    status, error = encoder.error(body)
    assert (400, "invalid_request_error") == (status, error["type"])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"input": [NaN]}', rb'{"input": ["\ud800"]}']
)
def test_a_body_that_is_not_json_is_a_400(encoder, body):
    """Deep nesting and bad bytes included."""
    assert 400 == encoder.client.post("/v1/embeddings", content=body).status_code


def test_other_paths_and_methods_are_told_what_is_served(encoder):
    """404 and 405 with OpenAI's body."""
    found = [encoder.client.get("/x"), encoder.client.get("/v1/embeddings")]
    assert [404, 405] == [response.status_code for response in found]
    assert "POST" == found[1].headers["allow"]
    assert all("message" in response.json()["error"] for response in found)


def test_special_tokens_in_a_text_are_text(encoder):
    """A user who writes [SEP] gets brackets, not the end of the sequence."""
    counts = encoder.post({"input": ["hello [SEP] world", "hello", ""]}, "/tokenize").json()
    assert [9, 3, 2] == counts["input_tokens"]


def test_truncation_keeps_the_special_tokens(encoder):
    """What is cut off is text: the model still sees its CLS and SEP, and the answer says so."""
    answer = encoder.ask(["dog " * 500, "dog"], truncate=True)
    assert [True, False] == answer["truncated"]
    assert [LIMIT, 3] == answer["input_tokens"]
    dog = encoder.vectors(["dog " * (LIMIT - 2)])
    assert dog == encoder.vectors(["dog " * 500], truncate=True)


def test_truncation_keeps_the_end_token_of_a_decoder(start, models):
    """For a vector of the last token the last token must stay EOS."""
    engine = start(models["decoder"], n_ctx=70)
    bos, eos, a, word_a = 1, 2, 260, 286
    answer = engine.ask(["a" * 500], truncate=True)
    assert ([70], [True]) == (answer["input_tokens"], answer["truncated"])
    ids = [bos, word_a, *[a] * 67, eos]
    assert engine.vectors([ids]) == engine.vectors(["a" * 500], truncate=True)


def test_n_ctx_above_the_models_positions_is_lowered(start, models):
    """llama.cpp would abort at the first text beyond; a warning says what holds."""
    engine = start(models["encoder"], n_ctx=900)
    assert LIMIT == engine.health()["context"]
    assert engine.events("n_ctx")
    assert 400 == engine.error({"input": [WORD * 200]})[0]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_decoder_embeds_texts_of_its_whole_context(start, models, pooling):
    """Mean pooling over more than a micro-batch aborts in llama.cpp; here it fits by size."""
    engine = start(models["chat"], pooling=pooling, contexts=1)
    lengths = [1, 63, 64, 511, 512, 513, 1024, 1025, 2047, 2048]
    texts = [[1, *[270] * (length - 1)] for length in lengths]
    assert lengths == engine.ask(texts)["input_tokens"]
    assert 400 == engine.error({"input": [[1] * 2049]})[0]
    assert engine.process.poll() is None


def test_no_pooling_is_refused_with_an_explanation(start, models):
    """A chat model would give one vector a token, or an arbitrary one."""
    with pytest.raises(EngineEndedError, match=r"not an embedding model.*pooling") as ended:
        start(models["chat"])
    assert 3 == ended.value.code


@pytest.mark.parametrize(
    ("pooling", "said"), [(None, "set pooling"), (PoolingType.RANK, "reranking")]
)
def test_encoders_that_give_no_vector_are_refused(start, tmp_path, pooling, said):
    """An encoder that does not say its pooling, and one that scores pairs."""
    model = write_encoder(tmp_path / "m.gguf", pooling=pooling)
    with pytest.raises(EngineEndedError, match=said) as ended:
        start(model)
    assert 3 == ended.value.code


def test_broken_files_are_refused_with_a_sentence(start, models, tmp_path):
    """Cut short, no GGUF, missing, absurd: exit code 3 and a line that says which."""
    encoder = models["encoder"]
    size = encoder.stat().st_size
    broken = {
        r"does not exist": tmp_path / "none.gguf",
        r"not a GGUF": write_header(tmp_path / "magic.gguf", magic=b"GGML"),
        r"10,000 is the most": write_header(tmp_path / "keys.gguf", keys=1 << 60),
        r"cut short inside": cut(encoder, tmp_path / "header.gguf", 200),
        r"cut short: ": cut(encoder, tmp_path / "tensors.gguf", size // 2),
        r"cannot load.*corrupted or incomplete": cut(encoder, tmp_path / "end.gguf", size - 40),
        r"does not have: SEP": write_encoder(tmp_path / "sep.gguf", sep=None),
    }
    for said, model in broken.items():
        with pytest.raises(EngineEndedError, match=said) as ended:
            start(model)
        assert 3 == ended.value.code


def test_a_file_that_aborts_llama_cpp_is_refused_with_a_sentence(start, tmp_path):
    """The abort happens in a child that tries the model first."""
    model = write_decoder(tmp_path / "m.gguf", pooling=PoolingType.LAST, byte_tokens=False)
    with pytest.raises(EngineEndedError, match=r"llama\.cpp dies of SIGABRT") as ended:
        start(model)
    assert 3 == ended.value.code


def test_settings_that_cannot_be_read_are_refused(start, models):
    """The name at fault is in the line."""
    with pytest.raises(EngineEndedError, match="contexts") as ended:
        start(models["encoder"], contexts=0)
    assert 3 == ended.value.code


def test_a_pool_that_does_not_fit_is_refused_with_the_numbers(start, models):
    """Memory is counted before it is taken: exit code 4."""
    with pytest.raises(EngineEndedError, match=r"MiB are needed and .* available") as ended:
        start(models["slow"], contexts=1_000_000)
    assert 4 == ended.value.code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
TEXTS = st.text(max_size=300)
IDS = st.lists(st.integers(-5, 200), max_size=140)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=JSON | st.fixed_dictionaries({"input": st.lists(TEXTS | IDS | JSON, max_size=6)}))
def test_no_json_makes_a_5xx_or_ends_the_engine(encoder, body):
    """Whatever is sent, the answer is vectors or a client's mistake."""
    pid = encoder.process.pid
    response = encoder.post(body)
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        widths = {len(vector) for vector in encoder.vectors(body["input"])}
        assert {32 * struct.calcsize("f")} == widths
    assert pid == encoder.process.pid
    assert encoder.process.poll() is None


def test_a_model_that_gives_zeros_is_refused_at_load(start, tmp_path):
    """A vector of zeros has no direction; llama-server would send it with status 200."""
    with pytest.raises(EngineEndedError, match="only zeros") as ended:
        start(write_encoder(tmp_path / "m.gguf", dead=True))
    assert 3 == ended.value.code


def test_a_vector_that_is_not_finite_is_a_500_of_its_text_alone(start, tmp_path):
    """NaN never leaves the engine, and does not stay in the context for the next text."""
    healthy = start(write_encoder(tmp_path / "healthy.gguf"), contexts=1)
    engine = start(write_encoder(tmp_path / "m.gguf", broken_word="fruit"), contexts=1)
    expected = healthy.vectors(["green dog", "man " * 90])
    for text in ("fruit", "fruit " * 90):
        response = engine.post({"input": ["dog", text]})
        error = response.json()["error"]
        found = (response.status_code, error["code"], error["item"])
        assert (500, "invalid_vector", 1) == found
        assert "false" == response.headers["x-should-retry"]
        assert expected == engine.vectors(["green dog", "man " * 90])


def test_a_body_that_is_too_large_is_a_413(encoder):
    """It is not read to its end."""
    response = encoder.client.post("/v1/embeddings", content=b" " * ((64 << 20) + 1))
    assert (413, "payload_too_large") == (response.status_code, response.json()["error"]["code"])
    assert 1 == len(encoder.vectors(["dog"]))


def test_without_llama_cpp_the_engine_says_what_to_install(models, tmp_path):
    """A package of that name that is something else is no better."""
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").touch()
    with pytest.raises(EngineEndedError, match=r"extra \[local\]") as ended:
        RunningEngine(models["encoder"], tmp_path, python_path=tmp_path).start()
    assert 3 == ended.value.code
