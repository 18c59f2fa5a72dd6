"""Whatever is sent, nobody dies; whatever kills, is found; what cannot chat, is refused."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.chat.running_chat import PATH, asking
from tests.engine.chat.test_engine_chat_load import calling
from tests.engine.running_engine import EngineEndedError
from tests.tiny_gguf import write_encoder

pytestmark = pytest.mark.engine

POISON = "x" * 1500
FOREVER = {"n": 128}
"""So many answers take minutes: who is looked for finds it at work."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
SAID = st.text(max_size=40)
MESSAGE = st.fixed_dictionaries({"role": ROLES, "content": SAID}, optional={"name": SAID})
GOOD = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "logit_bias": st.dictionaries(st.integers(0, 400).map(str), st.floats(-100, 100)),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 20),
    "n": st.integers(1, 3),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "stop": st.text(min_size=1, max_size=3) | st.lists(st.text(min_size=1), max_size=4),
    "stream": st.booleans(),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    "user": SAID,
}
NAMES = [*GOOD, "messages", "model", "max_tokens", "tools", "tool_choice", "stream_options"]
BODY = st.fixed_dictionaries(
    {
        "model": st.just("tiny"),
        "messages": st.lists(MESSAGE, min_size=1, max_size=3),
        "max_tokens": st.integers(1, 12),
    },
    optional=GOOD,
)
SPOILED = st.builds(
    lambda body, spoilt: body | spoilt,
    BODY,
    st.dictionaries(st.sampled_from(NAMES), JSON, min_size=1, max_size=2),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=BODY | SPOILED | JSON)
def test_no_json_makes_a_5xx_or_ends_the_engine(tools, body):
    """The answer is an answer, or a client's mistake."""
    response = tools.post(body, PATH)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert {"message", "type", "param", "code"} == response.json()["error"].keys()
    assert tools.process.poll() is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"seed": NaN}', rb'{"model": "\ud800"}']
)
def test_a_body_that_is_not_json_is_a_400(tools, body):
    """Deep nesting and bad bytes included."""
    assert 400 == tools.client.post(PATH, content=body).status_code


def test_a_body_that_is_too_large_is_a_413(tools):
    """It is not read to its end."""
    response = tools.client.post(PATH, content=b" " * ((64 << 20) + 1))
    assert (413, "payload_too_large") == (response.status_code, response.json()["error"]["code"])
    assert tools.text(max_tokens=1) is not None


def test_three_deaths_make_a_prompt_refused_and_only_that_prompt(start_chat, chats):
    """The fourth time it is a 500 that SDKs do not repeat; whatever the seed."""
    engine = start_chat(chats["endless"], contexts=2)
    for seed in range(3):
        with calling(engine, asking(POISON, seed=seed, **FOREVER)):
            engine.wait_for(engine.at_work)
            engine.kill()
        engine.start()
    response = engine.post(asking(POISON), PATH)
    error = response.json()["error"]
    found = (response.status_code, error["code"], error["param"])
    assert (500, "text_crashes_engine", "messages") == found
    assert "false" == response.headers["x-should-retry"]
    assert engine.text("hello", max_tokens=1)
    assert 500 == engine.post(asking(POISON, stream=True), PATH).status_code


def test_who_leaves_does_not_clear_a_suspect_and_an_answer_does(start_chat, chats):
    """Two deaths, an answer, two deaths: it is still tried."""
    engine = start_chat(chats["endless"], contexts=1)
    for _ in range(2):
        for _ in range(2):
            with calling(engine, asking(POISON, **FOREVER)):
                engine.wait_for(engine.at_work)
                engine.kill()
            engine.start()
        with calling(engine, asking(POISON, **FOREVER)):
            engine.wait_for(engine.at_work)
        assert 1 == engine.chat(POISON, max_tokens=1)["usage"]["completion_tokens"]


def test_sigterm_finishes_what_is_in_flight(start_chat, chats):
    """The stream comes to its end; the exit code is 0."""
    engine = start_chat(chats["endless"], contexts=1)
    with engine.streaming(asking(stream=True, max_tokens=200)) as response:
        engine.process.terminate()
        assert response.read().endswith(b"data: [DONE]\n\n")
    assert 0 == engine.ended()


def test_no_text_reaches_the_log_or_the_journal(start_chat, chats):
    """At level debug, with good requests and bad ones, only numbers are logged."""
    canary = "xylophonecanary"
    engine = start_chat(chats["short"], log_level="debug")
    engine.chat(canary, max_tokens=3)
    engine.post(asking(f"{canary} " * 300), PATH)
    engine.post(asking(canary, stop=canary, tools=[{"type": canary}]), PATH)
    engine.post(asking(canary, response_format={"type": canary}), PATH)
    engine.client.post(PATH, content=b'{"model": "' + canary.encode())
    engine.stop()
    assert engine.raw
    assert canary.encode() not in b"".join(engine.raw)
    assert canary.encode() not in engine.journal.read_bytes()


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "holds no chat template.*chatml"),
        ("{% if %}", "not valid Jinja"),
        ("{{ raise_exception('no') }}", "fails on a plain message"),
        ("", "makes nothing of a plain message"),
    ],
)
def test_a_model_without_a_usable_template_is_refused(start_chat, chats, template, said):
    """With what to do about it."""
    with pytest.raises(EngineEndedError, match=said) as ended:
        start_chat(chats["mute"], chat_template=template)
    assert 3 == ended.value.code


def test_a_template_that_makes_nothing_of_some_messages_is_a_400(start_chat, chats):
    """Not a prompt of no tokens."""
    template = "{% if messages[0].content != 'hush' %}x{% endif %}"
    engine = start_chat(chats["mute"], chat_template=template)
    status, error = engine.refusal("hush")
    assert (400, "messages") == (status, error["param"])
    assert engine.text("hello", max_tokens=1) is not None


def test_an_embedding_model_is_refused(start_chat, tmp_path):
    """It writes nothing."""
    with pytest.raises(EngineEndedError, match="this is an embedding model") as ended:
        start_chat(write_encoder(tmp_path / "m.gguf"))
    assert 3 == ended.value.code


def test_contexts_that_do_not_fit_are_refused_with_the_numbers(start_chat, chats):
    """Memory is counted before it is taken: exit code 4."""
    with pytest.raises(EngineEndedError, match=r"MiB are needed and .* available") as ended:
        start_chat(chats["slow"], contexts=1_000_000)
    assert 4 == ended.value.code


def test_what_may_surprise_is_said_at_start(start_chat, chats):
    """More contexts than cores, and a bound above what the model was trained on."""
    engine = start_chat(chats["short"], contexts=9, n_ctx=900)
    said = {line["event"] for line in engine.log if line["level"] == "warning"}
    assert {"contexts", "n_ctx"} <= said
    assert 512 == engine.health()["context"]
